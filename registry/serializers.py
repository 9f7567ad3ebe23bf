"""What the deployment endpoints take and give."""

from datetime import UTC

from rest_framework import serializers

from kalimtak.core.api import RequestSerializer, StrictBooleanField, StrictCharField, StrictIntegerField
from registry.models import Deployment
from registry.services import STRATEGIES


class DeployRequestSerializer(RequestSerializer):
    version = StrictCharField(max_length=80, help_text="such as emotion/3")
    strategy = serializers.ChoiceField(choices=STRATEGIES, default="full")
    share = StrictIntegerField(min_value=1, max_value=100, default=100, help_text="percent of requests")
    force = StrictBooleanField(default=False, help_text="deploy against the gate; needs a reason")
    reason = StrictCharField(max_length=300, allow_blank=True, default="")


class RollbackRequestSerializer(RequestSerializer):
    classifier = StrictCharField(max_length=63)
    to = StrictIntegerField(min_value=1, max_value=2**31 - 1, required=False, allow_null=True)
    reason = StrictCharField(max_length=300)


class DeploymentSerializer(serializers.ModelSerializer[Deployment]):
    """A deployment as the API shows it."""

    deployment = serializers.IntegerField(source="pk", read_only=True)
    version = serializers.CharField(source="version.ref", read_only=True)
    classifier = serializers.CharField(source="classifier.slug", read_only=True)
    started_at = serializers.DateTimeField(default_timezone=UTC, read_only=True)

    class Meta:
        model = Deployment
        fields = ("deployment", "version", "classifier", "role", "share", "started_at", "actor", "reason", "forced")
        read_only_fields = fields
