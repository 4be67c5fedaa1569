"""Rows as QFieldCloud's web application would write them, for any release.

`Database.insert` fills each NOT NULL column that is not given, so a test names only what it is about. The other
functions write what belongs together: a user and its account, a project and its QGIS file, a job and its child row.
"""

import datetime
import hashlib
import json
import uuid

import psycopg2.extras

PROJECT_FILE, PACKAGE_FILE = 1, 2
PERSON, ORGANIZATION, TEAM = 1, 2, 3
CHILD_TABLES = {
    "package": "core_packagejob",
    "process_projectfile": "core_processprojectfilejob",
    "delta_apply": "core_applyjob",
}
POLYGON = "SRID=4326;POLYGON((0 0,1 0,1 1,0 1,0 0))"
POINT = "SRID=4326;POINT(0 0)"

psycopg2.extras.register_uuid()


def now():
    return datetime.datetime.now(datetime.timezone.utc)


def zero(column):
    """A value that says nothing, for a column that must have one."""
    type_ = column.type.partition("(")[0]
    if type_ == "geometry":
        return POLYGON if "Polygon" in column.type else POINT
    values = {
        "uuid": uuid.uuid4,
        "timestamptz": now,
        "jsonb": lambda: "{}",
        "interval": lambda: "1 hour",
        "bytea": lambda: b"",
        "boolean": lambda: False,
        "text": str,
        "varchar": str,
        "inet": lambda: "127.0.0.1",
    }
    return values.get(type_, int)()


class Database:
    """One database of a server; also a connection to it, each statement its own transaction."""

    def __init__(self, server, name, schema):
        self.server, self.name, self.schema = server, name, schema
        self.release = schema.release
        self.project_table = schema.project
        self.objects = {}  # storage key -> bytes, what an object store would hold
        self.planted_tokens = set()
        self._connection, self._count = None, 0

    @property
    def url(self):
        return self.server.url(self.name)

    @property
    def settings(self):
        return self.server.settings(self.name)

    def connect(self, **options):
        """A further connection, which the caller closes."""
        return self.server.connect(self.name, **options)

    def disconnect(self):
        """The next statement connects again, for instance after a restart of the server."""
        if self._connection:
            self._connection.close()
        self._connection = None

    def close(self):
        self.disconnect()
        self.server.drop(self.name)

    # Statements

    def execute(self, statement, *values):
        """Runs a statement with %s places; returns its rows as dictionaries, or how many rows it changed."""
        if not self._connection or self._connection.closed:
            self._connection = self.connect()
        with self._connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor:
            cursor.execute(statement, values or None)
            return [dict(row) for row in cursor.fetchall()] if cursor.description else cursor.rowcount

    def one(self, statement, *values):
        """The one row of a query, or None; more than one is an error."""
        rows = self.execute(statement, *values)
        assert len(rows) <= 1, f"{len(rows)} rows for: {statement}"
        return rows[0] if rows else None

    def value(self, statement, *values):
        """The one column of the one row, or None without a row."""
        row = self.one(statement, *values)
        return next(iter(row.values())) if row else None

    def _adapted(self, table, name, value):
        column = self.schema.tables[table].columns.get(name)
        if column is None:
            raise KeyError(f"{table} has no column {name} in {self.release}")
        return json.dumps(value) if column.type == "jsonb" and not isinstance(value, (str, type(None))) else value

    def has(self, table, column=None):
        """Does this release have the table, or the column in it?"""
        described = self.schema.tables.get(table)
        return described is not None and (column is None or column in described.columns)

    def insert(self, table, **values):
        """Inserts a row and returns it whole. A dictionary or list becomes JSON, a string for a JSON column is sent as
        it is."""
        for column in self.schema.tables[table].columns.values():
            if column.not_null and not column.identity:
                values.setdefault(column.name, zero(column))
        names = ", ".join(f'"{name}"' for name in values)
        places = ", ".join(["%s"] * len(values))
        adapted = [self._adapted(table, name, value) for name, value in values.items()]
        return self.execute(f"INSERT INTO {table} ({names}) VALUES ({places}) RETURNING *", *adapted)[0]

    def update(self, table, key, **values):
        """Changes the row whose primary key is `key`; returns it as it is afterwards."""
        sets = ", ".join(f'"{name}" = %s' for name in values)
        adapted = [self._adapted(table, name, value) for name, value in values.items()]
        where = f"{self.schema.tables[table].key()} = %s"
        return self.execute(f"UPDATE {table} SET {sets} WHERE {where} RETURNING *", *adapted, key)[0]

    def get(self, table, key):
        """The row whose primary key is `key`, or None."""
        return self.one(f"SELECT * FROM {table} WHERE {self.schema.tables[table].key()} = %s", key)

    def dump(self, *tables):
        """{table: {key: row}} of these tables, or of all, for a comparison with a later dump."""
        result = {}
        for table in tables or self.schema.tables:
            key = self.schema.tables[table].key()
            rows = self.execute(f"SELECT {key}::text AS key, to_jsonb(t) AS row FROM {table} t")
            result[table] = {row["key"]: row["row"] for row in rows}
        return result

    # Things

    def _name(self, kind):
        self._count += 1
        return f"{kind}{self._count}"

    def _account(self, name, type_, **values):
        user = self.insert("core_user", username=name, type=type_, is_active=True, **values)
        self.insert("core_useraccount", user_id=user["id"], timezone="UTC")
        return user

    def user(self, name=None, **values):
        """A person."""
        user = self._account(name or self._name("person"), PERSON, **values)
        self.insert("core_person", user_ptr_id=user["id"])
        return user

    def organization(self, owner, name=None, members=(), admins=()):
        """Its core_user row; `members` and `admins` are persons."""
        user = self._account(name or self._name("organization"), ORGANIZATION)
        self.insert(
            "core_organization", user_ptr_id=user["id"], organization_owner_id=owner["id"], created_by_id=owner["id"]
        )
        for people, role in ((members, "member"), (admins, "admin")):
            for person in people:
                self.insert(
                    "core_organizationmember", organization_id=user["id"], member_id=person["id"], role=role
                )
        return user

    def team(self, organization, name=None, members=()):
        """Its core_user row."""
        user = self._account(name or f"@{organization['username']}/{self._name('team')}", TEAM)
        self.insert("core_team", user_ptr_id=user["id"], team_organization_id=organization["id"])
        for person in members:
            self.insert("core_teammember", team_id=user["id"], member_id=person["id"])
        return user

    def collaborator(self, project, user, role="editor", **values):
        return self.insert(
            "core_projectcollaborator", project_id=project["id"], collaborator_id=user["id"], role=role, **values
        )

    def project(self, owner=None, qgis_file="success.qgs", name=None, files=("data.gpkg",), **values):
        """A project and its files. The QGIS file's name says what the stand-in image plays; None: there is none."""
        owner = owner or self.user()
        values.setdefault("packaging_offliner", "qgiscore")
        values.setdefault("file_storage", "default")
        values.setdefault("attachments_file_storage", "default")
        by_name = self.has(self.project_table, "the_qgis_file_name")
        if by_name:
            values["the_qgis_file_name"] = qgis_file
        project = self.insert(
            self.project_table, owner_id=owner["id"], name=name or self._name("project"), **values
        )
        for file_name in files:
            self.file(project, file_name)
        if qgis_file is not None:
            file = self.file(project, qgis_file, b"<qgis/>\n")
            if not by_name:
                project = self.update(self.project_table, project["id"], the_qgis_file_id=file["id"])
        return project

    def file(self, project, name, content=None, file_type=PROJECT_FILE, package_job=None):
        """A file with one version, and its object."""
        content = f"this is {name}\n".encode() if content is None else content
        place = f"packages/{package_job['id']}" if package_job else "files"
        file = self.insert(
            "filestorage_file",
            project_id=project["id"],
            name=name,
            file_type=file_type,
            package_job_id=package_job["id"] if package_job else None,
            uploaded_by_id=project["owner_id"],
        )
        return self.version(file, f"projects/{project['id']}/{place}/{name}", content)

    def version(self, file, key, content):
        """A new latest version of a file; returns the file."""
        self.objects[key] = content
        version = self.insert(
            "filestorage_fileversion",
            file_id=file["id"],
            file_storage="default",
            content=key,
            size=len(content),
            etag=hashlib.md5(content).hexdigest(),
            md5sum=hashlib.md5(content).digest(),
            sha256sum=hashlib.sha256(content).digest(),
            uploaded_by_id=file["uploaded_by_id"],
        )
        return self.update(
            "filestorage_file",
            file["id"],
            latest_version_id=version["id"],
            latest_version_count=file["latest_version_count"] + 1,
        )

    def job(self, project, type="package", status="pending", user=None, child=None, **values):
        """A job of any type and its child row; by and for `user`, else the project's owner."""
        user_id = user["id"] if user else project["owner_id"]
        values.setdefault("created_by_id", user_id)
        values.setdefault("triggered_by_id", user_id)
        values.setdefault("container_id", "")
        job = self.insert("core_job", project_id=project["id"], type=type, status=status, **values)
        if type in CHILD_TABLES:
            self.insert(CHILD_TABLES[type], job_ptr_id=job["id"], **(child or {}))
        return job

    def delta(self, project, user=None, content=None, status="pending", **values):
        """A delta that patches a feature; its content may be given whole, or the parts that differ."""
        identity = uuid.uuid4()
        values.setdefault("client_id", uuid.uuid4())
        full = {
            "uuid": str(identity),
            "clientId": str(values["client_id"]),
            "exportId": str(uuid.uuid4()),
            "method": "patch",
            "localPk": "1",
            "sourcePk": "1",
            "localLayerId": "points_1",
            "sourceLayerId": "points_1",
            "old": {"attributes": {"int": 1}},
            "new": {"attributes": {"int": 2}},
        }
        full.update(content or {})
        return self.insert(
            "core_delta",
            id=identity,
            project_id=project["id"],
            content=full,
            last_status=status,
            created_by_id=user["id"] if user else project["owner_id"],
            **values,
        )

    def apply_job(self, project, deltas, overwrite_conflicts=False, **values):
        """A delta_apply job over these deltas, in this order."""
        job = self.job(project, "delta_apply", child={"overwrite_conflicts": overwrite_conflicts}, **values)
        for delta in deltas:
            self.insert("core_applyjobdelta", apply_job_id=job["id"], delta_id=delta["id"], status="pending")
        return job

    def constance(self, key, value, bare=False):
        """A setting of the administration's pages; `bare`: as older releases wrote it."""
        text = json.dumps(value if bare else {"__type__": "default", "__value__": value})
        return self.insert("constance_constance", key=key, value=text)

    def secret(self, name, value, type="envvar", project=None, organization=None, user=None):
        """A secret's row as it is: `value` is what the column holds."""
        return self.insert(
            "core_secret",
            name=name,
            type=type,
            value=value,
            project_id=project["id"] if project else None,
            organization_id=organization["id"] if organization else None,
            assigned_to_id=user["id"] if user else None,
        )

    def token(self, user, key=None, client_type="worker", expires_in_s=600):
        """A token of a test's own, which the check for what is left over knows."""
        row = self.insert(
            "authentication_authtoken",
            key=key or uuid.uuid4().hex,
            user_id=user["id"],
            client_type=client_type,
            expires_at=now() + datetime.timedelta(seconds=expires_in_s),
        )
        self.planted_tokens.add(row["id"])
        return row


def changes(before, after):
    """What differs between two dumps: {(table, key): {column: (before, after)}}; None stands for a missing row."""
    result = {}
    for table in after:
        for key in before[table].keys() | after[table].keys():
            old, new = before[table].get(key), after[table].get(key)
            if old is None or new is None:
                result[table, key] = {"": (old, new)}
            elif old != new:
                result[table, key] = {c: (old[c], new[c]) for c in new if old[c] != new[c]}
    return result
