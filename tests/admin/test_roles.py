"""The roles are made once and keep what was added by hand."""

from django.contrib.auth.models import Group, Permission

from kalimtak.roles import ROLES, roles_ensure


def test_the_five_roles_are_made_and_a_repetition_changes_nothing(db):
    assert roles_ensure() == list(ROLES) == ["viewer", "annotator", "trainer", "deployer", "admin"]
    before = {group.name: group.permissions.count() for group in Group.objects.all()}
    assert roles_ensure() == []
    assert {group.name: group.permissions.count() for group in Group.objects.all()} == before


def test_a_right_given_by_hand_stays(db):
    roles_ensure()
    extra = Permission.objects.get(codename="view_auditevent")
    Group.objects.get(name="viewer").permissions.add(extra)
    roles_ensure()
    assert extra in Group.objects.get(name="viewer").permissions.all()


def test_only_admins_may_deploy_against_the_gate_or_see_who_asked(people, db):
    from django.contrib.auth.models import User

    user = User.objects.create(username="ada", is_staff=True)
    user.groups.add(Group.objects.get(name="admin"))
    for permission in ("registry.force_deploy_modelversion", "interactions.view_personalrecord"):
        assert user.has_perm(permission)
        assert not any(getattr(people, name).has_perm(permission) for name in ("rami", "tala", "dina", "vera"))


def test_no_role_may_change_users():
    """Who may change users may make themselves anything: that is for superusers."""
    assert not [code for codes in ROLES.values() for code in codes if code.startswith("auth.") and ".view_" not in code]
