"""What PostgreSQL's catalog says about a table, and which of it a reader may rely on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_batchkit.connectors.sql.dialect import Column, Table, UniqueKey
from airflow_batchkit.engine.exceptions import UsageError

if TYPE_CHECKING:
    from psycopg import Connection

_NAMES_SHOWN = 20

# A name is meant exactly as the catalog spells it; without a schema it is looked for in the search path.
_RELATION = """
    SELECT c.oid, n.nspname, c.relname, c.relkind::text,
           c.relkind = 'r' AND EXISTS (SELECT 1 FROM pg_catalog.pg_inherits WHERE inhparent = c.oid),
           CASE WHEN c.relkind = 'v' THEN pg_catalog.pg_get_viewdef(c.oid) ELSE '' END
      FROM pg_catalog.pg_class AS c
      JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
       AND ((c.relname = $1 AND pg_catalog.pg_table_is_visible(c.oid)) OR n.nspname || '.' || c.relname = $1)
     ORDER BY c.relname = $1 DESC
     LIMIT 1
"""
_VISIBLE = """
    SELECT relname FROM pg_catalog.pg_class
     WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND pg_catalog.pg_table_is_visible(oid)
       AND relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
     ORDER BY relname LIMIT $1::int
"""
# A domain is compared as the type behind it. format_type(…, -1) names a type without a length of its own:
# a key cast to `character` would be cut to one letter, one cast to `bpchar` is not.
_COLUMNS = """
    WITH RECURSIVE behind (attnum, type) AS (
        SELECT attnum, atttypid FROM pg_catalog.pg_attribute
         WHERE attrelid = $1::oid AND attnum > 0 AND NOT attisdropped
        UNION ALL
        SELECT b.attnum, t.typbasetype FROM behind AS b
          JOIN pg_catalog.pg_type AS t ON t.oid = b.type AND t.typtype = 'd'
    )
    SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), NOT a.attnotnull,
           pg_catalog.format_type(t.oid, -1),
           COALESCE(l.collisdeterministic, TRUE) AND (t.typtype = 'e' OR t.typname IN (
               'int2', 'int4', 'int8', 'oid', 'numeric', 'float4', 'float8', 'bool', 'uuid', 'bytea', 'text',
               'varchar', 'bpchar', 'name', 'date', 'time', 'timestamp', 'timestamptz')),
           l.collname || ' ' || COALESCE(pg_catalog.pg_collation_actual_version(l.oid), '')
      FROM pg_catalog.pg_attribute AS a
      JOIN behind AS b ON b.attnum = a.attnum
      JOIN pg_catalog.pg_type AS t ON t.oid = b.type AND t.typtype <> 'd'
      LEFT JOIN pg_catalog.pg_collation AS l ON l.oid = a.attcollation
     WHERE a.attrelid = $1::oid
     ORDER BY a.attnum
"""
# A unique index that is partial, invalid (still being built) or on an expression says nothing about all rows.
# A deferrable one does: a reader sees only what is committed, and by then it was checked. Columns behind
# INCLUDE are not part of the key. Another operator class than the type's own may take more for equal.
_UNIQUE_KEYS = """
    SELECT i.indisprimary,
           pg_catalog.array_agg(a.attname::text ORDER BY k.at),
           pg_catalog.array_agg(CASE WHEN k.coll <> 0 AND k.coll <> a.attcollation
                                     THEN pg_catalog.quote_ident(n.nspname) || '.'
                                          || pg_catalog.quote_ident(l.collname) END ORDER BY k.at),
           COALESCE((pg_catalog.to_jsonb(i) ->> 'indnullsnotdistinct')::boolean, FALSE)
      FROM pg_catalog.pg_index AS i
     CROSS JOIN LATERAL unnest(i.indkey::int2[], i.indcollation::oid[], i.indclass::oid[])
                        WITH ORDINALITY AS k (attnum, coll, opclass, at)
      JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
      JOIN pg_catalog.pg_opclass AS o ON o.oid = k.opclass
      LEFT JOIN pg_catalog.pg_collation AS l ON l.oid = k.coll
      LEFT JOIN pg_catalog.pg_namespace AS n ON n.oid = l.collnamespace
     WHERE i.indrelid = $1::oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
       AND i.indexprs IS NULL AND k.at <= i.indnkeyatts
     GROUP BY i.indexrelid, i.indisprimary, 4
    HAVING pg_catalog.bool_and(o.opcdefault OR o.opcname LIKE '%\\_pattern\\_ops')
     ORDER BY i.indisprimary DESC, i.indexrelid
"""
_MAY_ASK_FOR_THE_CLUSTER = """
    SELECT pg_catalog.has_function_privilege(to_regprocedure('pg_catalog.pg_control_system()'), 'EXECUTE')
"""
_CLUSTER = "SELECT system_identifier::text FROM pg_catalog.pg_control_system()"
_DATABASE = """
    SELECT d.datname, current_setting('server_encoding'), d.datcollate || ' ' || COALESCE(%s, '')
      FROM pg_catalog.pg_database AS d WHERE d.datname = current_database()
"""
_VERSION_OF_DEFAULT = "pg_catalog.pg_database_collation_actual_version(d.oid)"
_KNOWS_VERSION_OF_DEFAULT = 150_000
_DEFAULT_COLLATION = "default "


def table_of(connection: Connection[Any], name: str) -> Table:
    """Look at a table, a partitioned one, a view, a materialized view or a foreign table.

    :param name: as the catalog spells it, alone or as ``schema.table``.
    :raises UsageError: there is none of this name, or its text has no known encoding.
    """
    ask = _asker(connection)
    knows = connection.info.server_version >= _KNOWS_VERSION_OF_DEFAULT
    database, encoding, locale = ask(_DATABASE % (_VERSION_OF_DEFAULT if knows else "NULL"))[0]
    if encoding == "SQL_ASCII":
        raise UsageError(
            f"database {database!r} has the encoding SQL_ASCII, which does not say what its bytes mean; "
            "read it from a database with a real encoding"
        )
    found = ask(_RELATION, name)
    if not found:
        names = [row[0] for row in ask(_VISIBLE, str(_NAMES_SHOWN))]
        raise UsageError(
            f"there is no table {name!r} in database {database!r} (written exactly, without quotes; "
            f"schema.table where it is not in the search path); there are {', '.join(names) or 'none'}"
        )
    oid, schema, relation, kind, has_children, definition = found[0]
    unique_keys = list(_unique_keys(ask(_UNIQUE_KEYS, str(oid))))
    primary = next((key for is_primary, key in unique_keys if is_primary), None)
    return Table(
        # The table's number outlives VACUUM FULL, CLUSTER and TRUNCATE, but not DROP and CREATE.
        identity=(_cluster(connection), database, f"{schema}.{relation}", str(oid)),
        name=f"{quoted(schema)}.{quoted(relation)}",
        columns=tuple(_column(row, locale) for row in ask(_COLUMNS, str(oid))),
        primary_key=primary,
        unique_keys=tuple(key for _, key in unique_keys),
        # A parent's index does not hold for the tables that inherit from it, which are read with it.
        enforces_keys=kind in {"r", "p", "m"} and not has_children,
        definition=definition,
    )


def is_named(connection: Connection[Any], table: Table) -> bool:
    """Tell whether the name that a table had when it was looked at still leads to it."""
    (oid,) = _asker(connection)("SELECT to_regclass($1)::oid::text", table.name)[0]
    return bool(oid == table.identity[-1])


def quoted(identifier: str) -> str:
    """Write a name so that it is nothing but a name."""
    return '"' + identifier.replace('"', '""') + '"'


def _asker(connection: Connection[Any]) -> Any:
    from psycopg import RawCursor

    def ask(query: str, *parameters: str) -> list[tuple[Any, ...]]:
        with RawCursor(connection) as cursor:
            return cursor.execute(query.encode(), parameters).fetchall()

    return ask


def _cluster(connection: Connection[Any]) -> str:
    """Name the cluster: its own number, which a standby shares, or else its address."""
    ask = _asker(connection)
    if ask(_MAY_ASK_FOR_THE_CLUSTER)[0][0]:
        identifier: str = ask(_CLUSTER)[0][0]
        return identifier
    return f"{connection.info.host}:{connection.info.port}"


def _column(row: tuple[Any, ...], locale: str) -> Column:
    name, declared, nullable, base, exact, collation = row
    if collation is not None and collation.startswith(_DEFAULT_COLLATION):
        collation = f"{collation}{locale}"
    return Column(name=name, type=declared, nullable=nullable, base=base, exact=exact, collation=collation)


def _unique_keys(rows: list[tuple[Any, ...]]) -> Any:
    for is_primary, columns, collations, nulls_not_distinct in rows:
        yield (
            is_primary,
            UniqueKey(
                columns=tuple(columns),
                collations={
                    column: collation
                    for column, collation in zip(columns, collations, strict=True)
                    if collation is not None
                },
                nulls_distinct=not nulls_not_distinct,
            ),
        )
