"""The one insert that every answer waits for, without the ORM's preparation of each value.

`bulk_create` asks every field of every row how it is stored, which takes longer than SQLite needs (decision 21).
Here the columns and the values that are the same for all rows are worked out once, and the rest is put into tuples.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, NamedTuple

from django.db import connection, models

from interactions.models import PersonalRecord, UserInteraction

if TYPE_CHECKING:
    from interactions.services import NewInteraction

USER_AGENT_LENGTH = 300
ROWS_AT_ONCE = 500
# The columns that are written for each row, in the order of the tuples in `answers_insert`.
ANSWER = (
    *("id", "classifier_id", "version_id", "deployment_id", "kind", "fields", "label", "labels", "confidence"),
    *("scores", "threshold", "abstained", "source", "flags", "latency_ms", "subject_id", "api_key_id", "created_at"),
)
PERSON = ("interaction_id", "address", "user_agent", "created_at")


@dataclass(frozen=True, slots=True)
class Insert:
    """`head` + so many times `row` + `tail`; `rest` are the values of the columns that are the same for all rows."""

    head: str
    row: str
    tail: str
    rest: tuple[Any, ...]

    def statements(self, rows: Sequence[tuple[Any, ...]]) -> Iterator["Statement"]:
        """What inserts `rows`, those that are there already left as they are."""
        literal = _literal()
        for start in range(0, len(rows), ROWS_AT_ONCE):
            some = rows[start : start + ROWS_AT_ONCE]
            if literal is None:
                text = self.head + ", ".join([self.row] * len(some)) + self.tail
                yield Statement(text, [value for row in some for value in (*row, *self.rest)])
            else:
                yield Statement(self._written_out(some, literal), None)

    def _written_out(self, rows: Sequence[tuple[Any, ...]], literal: Callable[[Any], bytes]) -> str:
        with connection.wrap_database_errors:  # of a value that PostgreSQL cannot hold, such as a NUL
            rest = b"".join([b", " + literal(value) for value in self.rest])
            values = b"), (".join([b", ".join(map(literal, row)) + rest for row in rows])
        return f"{self.head}({values.decode()}){self.tail}"


class Statement(NamedTuple):
    text: str
    values: list[Any] | None  # None where they stand in the text


def answers_insert(rows: Sequence["NewInteraction"], subjects: dict[str, int]) -> None:
    """Write the interactions and the personal records of `rows`; `subjects` maps pseudonyms to row ids.

    To be called within a transaction, unless `is_one_message`. Raises what the database raises.
    """
    if not rows:
        return
    with connection.cursor() as cursor:
        statements = list(_statements(rows, subjects))
        if is_one_message(len(rows)):
            cursor.execute("; ".join([statement.text for statement in statements]))
            return
        for statement in statements:
            cursor.execute(*statement)


def is_one_message(count: int) -> bool:
    """Whether so many rows go to the database in one message, which makes them one transaction by itself.

    PostgreSQL runs the statements of a simple query so, which is what Django sends unless `server_side_binding` is on:
    https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-MULTI-STATEMENT
    """
    return _writes_values() and 0 < count <= ROWS_AT_ONCE


def _writes_values() -> bool:
    """Whether values go to the database as part of the text."""
    return not getattr(connection.features, "uses_server_side_binding", True)  # PostgreSQL's alone has the name


def _literal() -> Callable[[Any], bytes] | None:
    """How psycopg writes a value into a text; None where values go beside it.

    Given more than 50 values, it would first look for the place of each in the text, every time anew. That took several
    times as long as writing them.
    """
    if not _writes_values():
        return None
    from psycopg.adapt import Transformer

    connection.ensure_connection()
    return Transformer(connection.connection).as_literal


def _statements(rows: Sequence["NewInteraction"], subjects: dict[str, int]) -> Iterator[Statement]:
    uuid, moment, document = conversions()
    answers, people = [], []
    for row in rows:
        key, at = uuid(row.id), moment(row.created_at)
        answers.append(
            (
                key,
                row.classifier_id,
                row.version_id,
                row.deployment_id,
                row.kind,
                document(row.fields),
                row.label,
                row.labels,
                row.confidence,
                document(row.scores),
                row.threshold,
                row.abstained,
                row.source,
                document(row.flags),
                row.latency_ms,
                subjects.get(row.pseudonym),
                row.api_key_id,
                at,
            )
        )
        if row.address or row.user_agent:
            people.append((key, _address(row.address), row.user_agent[:USER_AGENT_LENGTH], at))
    yield from insert_into(UserInteraction, ANSWER, connection.vendor).statements(answers)
    yield from insert_into(PersonalRecord, PERSON, connection.vendor).statements(people)


def conversions() -> tuple[Callable[[Any], Any], Callable[[Any], Any], Callable[[Any], str]]:
    """How this database is told a UUID, a moment and a JSON document."""
    if connection.vendor == "postgresql":  # it knows what its columns hold; psycopg would say so of each value
        return str, str, json.dumps
    return lambda key: key.hex, connection.ops.adapt_datetimefield_value, json.dumps


@lru_cache(maxsize=8)
def insert_into(model: type[models.Model], given: tuple[str, ...], vendor: str) -> Insert:
    """The insert of rows that give these columns; every other gets its field's default, a key the database's."""
    fields = {field.attname: field for field in model._meta.concrete_fields}
    others = [name for name in fields if name not in given and not fields[name].primary_key]
    rest = [fields[name].get_db_prep_save(fields[name].get_default(), connection) for name in others]
    quote = connection.ops.quote_name
    columns = ", ".join(quote(fields[name].column or name) for name in (*given, *others))
    return Insert(
        head=f"INSERT INTO {quote(model._meta.db_table)} ({columns}) VALUES ",  # noqa: S608  (names of our own columns)
        row=f"({', '.join(['%s'] * (len(given) + len(others)))})",
        tail=" ON CONFLICT DO NOTHING",
        rest=tuple(rest),
    )


@lru_cache(maxsize=1024)
def _address(address: str) -> str | None:
    """None for what is no IP address, such as the name of a socket: PostgreSQL would refuse the whole group."""
    try:
        return str(ip_address(address.partition("%")[0]))
    except ValueError:
        return None
