"""Asks for the right label, or labels, of several items."""

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget, UnfoldAdminSelectWidget

from registry.models import Classifier


class RelabelForm(forms.Form):
    """One label for all, or of a multi-label classifier any number of them."""

    def __init__(self, *args: Any, classifier: Classifier, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choices = [(label, label) for label in classifier.labels]
        self.fields["label"] = (
            forms.MultipleChoiceField(
                label=_("New labels"),
                choices=choices,
                required=False,
                widget=UnfoldAdminCheckboxSelectMultipleWidget(),
                help_text=_("None chosen: none of the labels is right."),
            )
            if classifier.multi_label
            else forms.ChoiceField(label=_("New label"), choices=choices, widget=UnfoldAdminSelectWidget())
        )
