"""What the training endpoints take and give."""

from typing import Any

from rest_framework import serializers

from kalimtak.core.api import (
    OwnFieldsSerializer,
    RequestSerializer,
    StrictBooleanField,
    StrictCharField,
    StrictIntegerField,
)
from kalimtak.core.models import Job
from training.models import Dataset, TrainingDataItem, TrainingRun
from training.services.datasets import MAX_LABELS, THEN


def correct_labels_field() -> serializers.ListField:
    return serializers.ListField(
        child=StrictCharField(max_length=120),
        required=False,
        max_length=MAX_LABELS,
        help_text="Of a multi-label classifier: all labels that are right; an empty list means that none applies.",
    )


class FeedbackRequestSerializer(RequestSerializer):
    """What somebody thinks of an answer: at least a rating or a correction."""

    interaction_id = StrictCharField(max_length=64)
    rating = StrictIntegerField(min_value=1, max_value=5, required=False, allow_null=True)
    comment = StrictCharField(max_length=5_000, required=False, allow_blank=True, default="")
    correct_label = StrictCharField(max_length=120, required=False, allow_blank=True, default="")
    correct_labels = correct_labels_field()
    correct_response = StrictCharField(max_length=20_000, required=False, allow_blank=True, default="")
    subject = StrictCharField(max_length=200, required=False, allow_blank=True, default="")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        corrects = attrs["correct_label"] or "correct_labels" in attrs or attrs["correct_response"]
        if attrs.get("rating") is None and not corrects:
            raise serializers.ValidationError({"rating": ["Give a rating or a correction."]})
        return attrs


class ExampleRequestSerializer(OwnFieldsSerializer):
    """An example without an interaction: the classifier's own fields stand beside these keys."""

    classifier = StrictCharField(max_length=63)
    text = StrictCharField(required=False, trim_whitespace=False, help_text="or the classifier's own fields")
    correct_label = StrictCharField(max_length=120, required=False)
    correct_labels = correct_labels_field()
    subject = StrictCharField(max_length=200, required=False, allow_blank=True, default="")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if not {"correct_label", "correct_labels"} & attrs.keys():
            raise serializers.ValidationError({"correct_label": ["This field is required."]})
        return attrs


class FeedbackResponseSerializer(serializers.Serializer[Any]):
    feedback_id = serializers.IntegerField()
    interaction_id = serializers.UUIDField()
    status = serializers.ChoiceField(choices=["recorded", "updated"])


class ExampleResponseSerializer(serializers.Serializer[Any]):
    item_id = serializers.IntegerField()
    status = serializers.ChoiceField(choices=TrainingDataItem.Status.choices)


class DatasetUploadSerializer(RequestSerializer):
    """A file, or the address of one."""

    classifier = StrictCharField(max_length=63)
    file = serializers.FileField(required=False, allow_empty_file=False)
    url = StrictCharField(max_length=2_000, required=False)
    then = serializers.ChoiceField(choices=THEN, default="none")
    role = serializers.ChoiceField(choices=Dataset.Role.choices, default=Dataset.Role.TRAINING)
    split = serializers.ChoiceField(choices=TrainingDataItem.Split.choices, required=False)
    text_field = serializers.ListField(child=StrictCharField(max_length=200), required=False, max_length=2)
    label_field = StrictCharField(max_length=200, required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("file" in attrs) == ("url" in attrs):
            raise serializers.ValidationError({"file": ["Give either a file or a url."]})
        return attrs


class DatasetQueuedSerializer(serializers.Serializer[Any]):
    job = serializers.UUIDField()
    dataset = serializers.IntegerField()


class CurateRequestSerializer(RequestSerializer):
    classifier = StrictCharField(max_length=63, required=False)
    dry_run = StrictBooleanField(default=False)


class CurationStatsSerializer(serializers.Serializer[Any]):
    extracted = serializers.IntegerField()
    duplicates = serializers.IntegerField()
    filtered = serializers.IntegerField()
    pii_redacted = serializers.IntegerField()
    over_represented = serializers.IntegerField()
    loaded = serializers.IntegerField()
    approved = serializers.IntegerField()
    for_review = serializers.IntegerField()
    quarantined = serializers.IntegerField()
    reasons = serializers.DictField(child=serializers.IntegerField())
    notes = serializers.DictField(child=serializers.CharField(), help_text="{classifier: what staff should know of it}")
    shares = serializers.DictField(
        child=serializers.DictField(
            child=serializers.DictField(child=serializers.ListField(child=serializers.FloatField()))
        ),
        help_text="{classifier: {label, domain, source: {name: [share of the set before, after]}}}",
    )


class RetrainRequestSerializer(RequestSerializer):
    classifier = StrictCharField(max_length=63)
    then = serializers.ChoiceField(choices=TrainingRun.Then.choices, default=TrainingRun.Then.NONE)


class JobQueuedSerializer(serializers.Serializer[Any]):
    job = serializers.UUIDField()


class JobSerializer(serializers.ModelSerializer[Job]):
    """A job of the ledger."""

    class Meta:
        model = Job
        fields = (
            "id",
            "kind",
            "state",
            "progress",
            "note",
            "result",
            "error",
            "attempt",
            "cancel_requested",
            "created_at",
            "started_at",
            "finished_at",
        )
        read_only_fields = fields
