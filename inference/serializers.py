"""The shapes of the prediction API for its OpenAPI page; requests are read by `inference.parsing`."""

from typing import Any

from rest_framework import serializers

from inference.guard import FLAGS
from inference.parsing import BATCH_SIZE, NAME_LENGTH, REQUEST_ID_LENGTH, TEXT_LENGTH, TOP_K
from interactions.models import UserInteraction
from kalimtak.core.api import OwnFieldsSerializer

# Of answers given here, not elsewhere.
SOURCES = [choice for choice in UserInteraction.Source.choices if choice[0] != UserInteraction.Source.IMPORTED]


class CommonRequestSerializer(OwnFieldsSerializer):
    text = serializers.CharField(required=False, max_length=TEXT_LENGTH)
    texts = serializers.ListField(
        child=serializers.CharField(max_length=TEXT_LENGTH), required=False, min_length=1, max_length=BATCH_SIZE
    )
    items = serializers.ListField(
        child=serializers.DictField(child=serializers.CharField()),
        required=False,
        min_length=1,
        max_length=BATCH_SIZE,
        help_text="Each with the classifier's own fields, and optionally `subject`.",
    )
    subject = serializers.CharField(
        required=False,
        max_length=NAME_LENGTH,
        help_text="Opaque id of the person asking; stored as a keyed hash.",
    )
    request_id = serializers.CharField(
        required=False,
        max_length=REQUEST_ID_LENGTH,
        help_text="For 24 hours the same request under the same id gets its first answer again.",
    )
    top_k = serializers.IntegerField(required=False, min_value=1, max_value=TOP_K)


class PredictRequestSerializer(CommonRequestSerializer):
    """One of `text`, the classifier's own fields (such as `question` and `context`), `texts` or `items`."""

    classifier = serializers.SlugField(required=False, help_text="By default the default classifier.")


class ClassifyRequestSerializer(CommonRequestSerializer):
    """One of `text`, the classifier's own fields (such as `question` and `context`), `texts` or `items`."""


class ResultSerializer(serializers.Serializer[Any]):
    """One answer. `/api/classify/<route>` adds the label under the classifier's own label field.

    The scores of a single-label classifier sum to 1. Those of a multi-label one are independent of each other.
    """

    interaction_id = serializers.UUIDField()
    classifier = serializers.SlugField()
    label = serializers.CharField(help_text="The top one.")  # type: ignore[assignment]
    labels = serializers.ListField(
        child=serializers.CharField(),
        required=False,
        help_text="Only of a multi-label classifier: all labels that reach their thresholds, best first, perhaps none.",
    )
    confidence = serializers.FloatField(min_value=0, max_value=1, help_text="The score of `label`.")
    scores = serializers.DictField(child=serializers.FloatField())
    abstained = serializers.BooleanField(
        help_text="`confidence` is under `threshold`; with several labels: none given."
    )
    threshold = serializers.FloatField(help_text="The one `label` was held against.")
    alternatives = serializers.ListField(child=serializers.CharField())
    source = serializers.ChoiceField(choices=SOURCES)  # type: ignore[assignment]
    model_version = serializers.CharField()
    deployment = serializers.ChoiceField(choices=["production", "canary", "split"])
    flags = serializers.ListField(child=serializers.ChoiceField(choices=FLAGS))
    latency_ms = serializers.FloatField(help_text="From arrival to answer, the recording left out.")


class ResultsSerializer(serializers.Serializer[Any]):
    results = ResultSerializer(many=True)


class LiveVersionSerializer(serializers.Serializer[Any]):
    model_version = serializers.CharField()
    role = serializers.CharField()
    share = serializers.IntegerField()


class ServedClassifierSerializer(serializers.Serializer[Any]):
    classifier = serializers.SlugField()
    name = serializers.CharField()
    description = serializers.CharField()
    route = serializers.CharField()
    default = serializers.BooleanField()
    labels = serializers.ListField(child=serializers.CharField())
    descriptions = serializers.DictField(
        child=serializers.CharField(), help_text="What some labels mean, in one line that may end in an emoji."
    )
    input_fields = serializers.ListField(child=serializers.CharField())
    label_field = serializers.CharField()
    multi_label = serializers.BooleanField(help_text="A text may get several labels, or none.")
    threshold = serializers.FloatField(help_text="The confidence floor; a version may bring a threshold of its own.")
    live = LiveVersionSerializer(many=True)


class ModelsSerializer(serializers.Serializer[Any]):
    models = ServedClassifierSerializer(many=True)


class HealthSerializer(serializers.Serializer[Any]):
    status = serializers.ChoiceField(choices=["ready", "not_ready"])
    problems = serializers.ListField(child=serializers.CharField())


class SpooledSerializer(serializers.Serializer[Any]):
    active = serializers.BooleanField(help_text="The database is away: this process writes its answers to the spool.")
    answers = serializers.IntegerField(help_text="What waits on this machine to be recorded.")
    bytes = serializers.IntegerField(help_text="The size of the spool, with what was set aside.")
    since = serializers.DateTimeField(allow_null=True, help_text="When the first of these answers was given.")
    set_aside = serializers.IntegerField(help_text="Files with answers that the database refused, or that are damaged.")


class HealthDetailsSerializer(HealthSerializer):
    waiting_texts = serializers.IntegerField()
    asked_seconds_ago = serializers.FloatField(help_text="When this process last read the live deployments.")
    spooled = SpooledSerializer()
    models = ServedClassifierSerializer(many=True)
