"""The object stores against real servers, through tests/live/stores_cli.c; what is in a store afterwards is asked of
the store itself."""

import json
import os
import subprocess

import pytest

PROJECT = "projects/b096ff14-1996-449a-ac18-c3c75c8944a7"
PACKAGE = f"{PROJECT}/packages/4f1c0f4e-2f37-4a0a-9d5c-0d6d5d0d3f11"
ODD = [
    f"{PACKAGE}/a b.gpkg",
    f"{PACKAGE}/a+b.gpkg",
    f"{PACKAGE}/100%.txt",
    f"{PACKAGE}/a%20b.gpkg",
    f"{PACKAGE}/a&b=c;d,e.txt",
    f"{PACKAGE}/Gewässer/Übersicht ß.jpg",
    f"{PACKAGE}/日本/地図.qgs",
    f"{PACKAGE}/#1 (it's) [x]{{y}}@$!~^.txt",
    f"{PACKAGE}/" + "long" * 60 + ".jpg",
]
S3_ONLY = [f"{PACKAGE}/what?.txt", f"{PACKAGE}/<&>\"'.xml", f"{PACKAGE}/a//b", f"{PACKAGE}/" + "ü" * 400]


class Answer:
    """What the program said."""

    def __init__(self, done):
        self.code, self.stdout = done.returncode, done.stdout
        assert self.code in (0, 1), done.stderr.decode()
        self.kind, self.status, self.message = None, 0, ""
        if self.code:
            self.kind, status, self.message = done.stderr.decode().rstrip("\n").split(" ", 2)
            self.status = int(status)
        else:
            assert done.stderr == b"", done.stderr.decode()

    @property
    def keys(self):
        return [key.decode() for key in self.stdout.split(b"\0")[:-1]]


@pytest.fixture
def cli(built):
    """Runs the program: cli(storages, "delete", "default", key, ..., VARIABLE=value)."""
    path = os.path.join(os.path.dirname(built), "tests", "stores-cli")
    if not os.path.exists(path):
        path = os.path.join(os.path.dirname(built), "..", "tests", "stores-cli")

    def run(storages, *words, **variables):
        env = {key: value for key, value in os.environ.items() if key.endswith("SAN_OPTIONS")}
        env.update({"STORAGES": storages, **variables})
        done = subprocess.run([path, *words], env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=300)
        return Answer(done)

    return run


def good(answer):
    assert answer.code == 0, f"{answer.kind} {answer.status} {answer.message}"
    return answer


# --- S3 ---------------------------------------------------------------------------------------------------------------


def test_s3_objects_are_deleted_and_neighbours_stay(cli, s3):
    bucket = s3.create_bucket()
    s3.put(bucket, f"{PACKAGE}/a", f"{PACKAGE}/ab", f"{PACKAGE}/b", f"{PACKAGE}/c")
    answer = good(cli(s3.storages(bucket), "delete", "default", f"{PACKAGE}/a", f"{PACKAGE}/b", f"{PACKAGE}/gone"))
    assert answer.stdout == b"3\n"
    assert s3.objects(bucket) == {f"{PACKAGE}/ab", f"{PACKAGE}/c"}


def test_s3_nothing_to_delete(cli, s3):
    assert good(cli(s3.storages(), "delete", "default")).stdout == b"0\n"


def test_s3_many_are_deleted_at_once(cli, s3):
    bucket = s3.create_bucket()
    keys = [f"{PACKAGE}/{i}" for i in range(50)]
    s3.put(bucket, "stays", *keys)
    assert good(cli(s3.storages(bucket), "delete", "default", *keys)).stdout == b"50\n"
    assert s3.objects(bucket) == {"stays"}


@pytest.mark.parametrize("legacy", [False, True])
def test_s3_odd_keys(cli, s3, legacy):
    flag = ["--legacy"] if legacy else []
    bucket = s3.create_bucket(versioned=legacy)
    keys = ODD + S3_ONLY
    s3.put(bucket, *keys)
    assert good(cli(s3.storages(bucket), "list", *flag, "default", f"{PACKAGE}/")).keys == sorted(keys, key=str.encode)
    for key in keys:
        assert good(cli(s3.storages(bucket), "list", *flag, "default", key)).keys == [key]
    for key in keys:
        s3.put(bucket, *keys)
        assert good(cli(s3.storages(bucket), "delete", *flag, "default", key)).stdout == b"1\n"
        assert s3.objects(bucket) == set(keys) - {key}
    assert good(cli(s3.storages(bucket), "delete", *flag, "default", *keys)).stdout == f"{len(keys)}\n".encode()
    assert s3.objects(bucket) == set()


def test_s3_control_characters_in_keys(cli, s3):
    bucket = s3.create_bucket()
    keys = [f"{PACKAGE}/tab\there", f"{PACKAGE}/\x01\x02"]
    s3.put(bucket, *keys)
    assert good(cli(s3.storages(bucket), "list", "default", PACKAGE)).keys == sorted(keys)
    good(cli(s3.storages(bucket), "delete", "default", *keys))
    assert s3.objects(bucket) == set()


@pytest.mark.parametrize("location", ["media", "/media/in here/", "a+b"])
def test_s3_location(cli, s3, location):
    bucket, inside = s3.create_bucket(), location.strip("/")
    s3.put(bucket, f"{inside}/{PACKAGE}/a", f"{inside}/{PACKAGE}/b", f"{PACKAGE}/a")
    storages = s3.storages(bucket, location=location)
    assert good(cli(storages, "list", "default", f"{PACKAGE}/")).keys == [f"{PACKAGE}/a", f"{PACKAGE}/b"]
    good(cli(storages, "delete", "default", f"{PACKAGE}/a"))
    good(cli(storages, "put", "default", f"{PACKAGE}/new", "text/plain", "x"))
    assert s3.objects(bucket) == {f"{inside}/{PACKAGE}/b", f"{inside}/{PACKAGE}/new", f"{PACKAGE}/a"}


def test_s3_a_bucket_in_the_host(cli, s3):
    bucket = s3.create_bucket()
    s3.put(bucket, "a b", "c")
    endpoint = s3.endpoint.replace("127.0.0.1", "localhost")
    storages = s3.storages(bucket, addressing_style="virtual", endpoint_url=endpoint)
    s3.proxy.requests.clear()
    assert good(cli(storages, "list", "default", "")).keys == ["a b", "c"]
    good(cli(storages, "delete", "default", "a b"))
    assert s3.objects(bucket) == {"c"}
    assert s3.requests[-1] == "DELETE /a%20b"


def test_s3_region_and_a_slash_at_the_endpoint(cli, s3):
    bucket = s3.create_bucket()
    s3.put(bucket, "a", "b")
    good(cli(s3.storages(bucket, region_name="eu-central-1", endpoint_url=s3.endpoint + "/"), "delete", "default", "a"))
    assert s3.objects(bucket) == {"b"}


def test_s3_delete_in_a_bucket_with_versions_leaves_them(cli, s3):
    bucket = s3.create_bucket(versioned=True)
    s3.put(bucket, "a")
    s3.put(bucket, "a")
    good(cli(s3.storages(bucket), "delete", "default", "a"))
    assert s3.versions(bucket) == [("a", False), ("a", False), ("a", True)]
    assert s3.objects(bucket) == set()
    assert good(cli(s3.storages(bucket), "list", "default", "")).keys == []


def test_s3_legacy_delete_removes_all_versions_of_that_key(cli, s3):
    bucket = s3.create_bucket(versioned=True)
    s3.put(bucket, "p/a", "p/ab", "p/a/b", "p/b")
    s3.put(bucket, "p/a")
    s3.delete(bucket, "p/a")
    s3.put(bucket, "p/a")
    s3.delete(bucket, "p/a")
    s3.delete(bucket, "p/b")
    # No location for what is legacy: QFieldCloud's core/utils.py knows none.
    storages = s3.storages(bucket, legacy=True, location="media")
    assert good(cli(storages, "list", "--legacy", "default", "p/")).keys == ["p/a", "p/a/b", "p/ab", "p/b"]
    s3.proxy.requests.clear()
    assert good(cli(storages, "delete", "--legacy", "default", "p/a", "p/b", "p/none")).stdout == b"3\n"
    assert sum(request.startswith("DELETE") for request in s3.requests) == 7
    assert s3.versions(bucket) == [("p/a/b", False), ("p/ab", False)]


def test_s3_legacy_delete_over_several_pages(cli, s3):
    bucket = s3.create_bucket(versioned=True)
    s3.fill(bucket, *["p/a"] * 1100, "p/aa", "p/b")
    good(cli(s3.storages(bucket), "delete", "--legacy", "default", "p/a"))
    assert s3.versions(bucket) == [("p/aa", False), ("p/b", False)]


def test_s3_legacy_delete_in_a_bucket_without_versions(cli, s3):
    bucket = s3.create_bucket()
    s3.put(bucket, "p/a", "p/ab")
    good(cli(s3.storages(bucket), "delete", "--legacy", "default", "p/a"))
    assert s3.objects(bucket) == {"p/ab"}


def test_s3_the_older_variables(cli, s3):
    bucket = s3.create_bucket(versioned=True)
    s3.put(bucket, "a", "b")
    older = {
        "STORAGE_ACCESS_KEY_ID": s3.access_key,
        "STORAGE_SECRET_ACCESS_KEY": s3.secret_key,
        "STORAGE_BUCKET_NAME": bucket,
        "STORAGE_REGION_NAME": "",
        "STORAGE_ENDPOINT_URL": s3.endpoint,
    }
    assert cli("", "legacy", **older).stdout == b"default\n"
    good(cli("", "delete", "--legacy", "default", "a", **older))
    assert s3.versions(bucket) == [("b", False)]


@pytest.mark.parametrize("legacy", [False, True])
def test_s3_lists_of_many_pages(cli, s3, legacy):
    bucket = s3.create_bucket(versioned=legacy)
    keys = [f"p/{i:04} +ü" for i in range(2100)]
    s3.fill(bucket, "o", "q", *keys)
    flag = ["--legacy"] if legacy else []
    s3.proxy.requests.clear()
    assert good(cli(s3.storages(bucket), "list", *flag, "default", "p/")).keys == keys
    assert len(s3.requests) == 3


def test_s3_put(cli, s3):
    bucket = s3.create_bucket()
    for text in ("first", "", "zweiter Inhalt: ü"):
        good(cli(s3.storages(bucket), "put", "default", "meta/thumbnail ü.png", "image/png", text))
        assert s3.get(bucket, "meta/thumbnail ü.png") == {"text": text, "content_type": "image/png"}


def test_s3_wrong_secret(cli, s3):
    s3.put(s3.bucket, "kept")
    answer = cli(s3.storages(secret_key="hunter2hunter2"), "delete", "default", "kept")
    assert (answer.kind, answer.status) == ("refused", 403)
    assert 'delete "kept" in storage "default": the store answers 403 SignatureDoesNotMatch: ' in answer.message
    assert "hunter2" not in answer.message
    assert answer.stdout == b"0\n"
    assert "kept" in s3.objects(s3.bucket)


def test_s3_unknown_key_id(cli, s3):
    answer = cli(s3.storages(access_key="AKIAIOSFODNN7EXAMPLE"), "list", "default", "a")
    assert (answer.kind, answer.status) == ("refused", 403)
    assert "InvalidAccessKeyId" in answer.message and "AKIAIOSFODNN7EXAMPLE" not in answer.message


@pytest.mark.parametrize(
    "words",
    [
        ("delete", "default", "a"),
        ("list", "default", "a"),
        ("delete", "--legacy", "default", "a"),
        ("put", "default", "a", "t/t", "x"),
    ],
)
def test_s3_a_bucket_that_is_not_there(cli, s3, words):
    answer = cli(s3.storages("no-such-bucket"), *words)
    assert (answer.kind, answer.status) == ("refused", 404)
    assert "NoSuchBucket" in answer.message


# --- Both stores: faults ----------------------------------------------------------------------------------------------


@pytest.fixture(params=["s3", "webdav"])
def store(request):
    """(server, STORAGES, keys there) with three objects p/a, p/b, p/c."""
    server = request.getfixturevalue(request.param)
    if request.param == "s3":
        bucket = server.create_bucket()
        server.put(bucket, "p/a", "p/b", "p/c")
        return server, server.storages(bucket), lambda: server.objects(bucket)
    server.put("p/a", "p/b", "p/c")
    return server, server.storages(), server.objects


WORDS = [("delete", "default", "p/a"), ("list", "default", "p/"), ("put", "default", "p/x", "text/plain", "x")]


@pytest.mark.parametrize("words", WORDS)
def test_a_server_that_is_down(cli, store, words):
    server, storages, objects = store
    server.down()
    answer = cli(storages, *words)
    assert answer.kind == "unreachable"
    assert f"connect to 127.0.0.1:{server.proxy.port}: Connection refused" in answer.message
    server.up()
    good(cli(storages, *words))


def test_a_server_that_does_not_answer_is_not_asked_for_each_object(cli, store):
    server, storages, objects = store
    server.cut(when="before", times=None)
    server.proxy.requests.clear()
    answer = cli(storages, "delete", "default", *[f"p/{i}" for i in range(40)])
    assert answer.kind == "unknown"
    assert answer.message.startswith('40 of 40 objects are left: delete "p/')
    assert 1 <= len(server.requests) < 40


@pytest.mark.parametrize(
    "status, kind",
    [
        *[(status, "again") for status in (500, 503, 429, 408)],
        *[(status, "refused") for status in (403, 401, 400, 302)],
    ],
)
@pytest.mark.parametrize("words", WORDS)
def test_a_server_that_answers_no(cli, store, words, status, kind):
    server, storages, objects = store
    server.fail(status)
    answer = cli(storages, *words)
    assert (answer.kind, answer.status) == (kind, status)
    assert f"the store answers {status} MadeUp: the proxy was told to say so" in answer.message
    assert objects() == {"p/a", "p/b", "p/c"}


def test_slow_down_is_worth_another_try(cli, s3):
    s3.fail(400, code="SlowDown")
    assert cli(s3.storages(), "delete", "default", "a").kind == "again"


def test_one_that_is_refused_does_not_keep_the_others(cli, store):
    server, storages, objects = store
    server.fail(403, pattern="/p/b")
    others = [f"p/gone-{i}" for i in range(20)]
    answer = cli(storages, "delete", "default", "p/b", *others, "p/a", "p/c")
    assert (answer.kind, answer.status, answer.stdout) == ("refused", 403, b"22\n")
    left = '1 of 23 objects are left: delete "p/b" in storage "default": the store answers 403 '
    assert answer.message.startswith(left)
    assert objects() == {"p/b"}
    server.behave()
    assert good(cli(storages, "delete", "default", "p/a", "p/b", "p/c")).stdout == b"3\n"
    assert objects() == set()


def test_what_is_worth_another_try_is_told_before_what_is_final(cli, store):
    server, storages, objects = store
    server.fail(403, pattern="/p/a")
    server.fail(500, pattern="/p/c")
    answer = cli(storages, "delete", "default", "p/a", "p/b", "p/c")
    assert (answer.kind, answer.status, answer.stdout) == ("again", 500, b"1\n")
    assert '"p/c"' in answer.message


@pytest.mark.parametrize("words", WORDS)
def test_a_server_that_is_silent(cli, store, words):
    server, storages, objects = store
    server.pause()
    answer = cli(storages, *words, QFC_TEST_DEADLINE_MS="300")
    assert answer.kind == "unknown"
    assert "no whole answer of" in answer.message
    server.behave()
    good(cli(storages, *words))


@pytest.mark.parametrize("words", WORDS)
def test_an_answer_that_is_lost(cli, store, words):
    """The store has done it; all may be repeated."""
    server, storages, objects = store
    server.cut(times=None)
    assert cli(storages, *words).kind == "unknown"
    server.behave()
    before = objects()
    good(cli(storages, *words))
    assert objects() == before


def test_a_storage_in_trouble_harms_only_itself(cli, s3):
    bucket = s3.create_bucket()
    s3.put(bucket, "a")
    storages = json.loads(s3.storages(bucket, name="works"))
    storages["broken"] = {"BACKEND": "django.core.files.storage.FileSystemStorage"}
    storages = json.dumps(storages)
    assert cli(storages, "trouble", "broken").stdout.startswith(b"its BACKEND is unknown")
    good(cli(storages, "delete", "works", "a"))
    assert s3.objects(bucket) == set()
    for name, why in (("broken", "its BACKEND is unknown"), ("none", "it is not in STORAGES")):
        answer = cli(storages, "delete", name, "a")
        assert answer.kind == "usage"
        assert why in answer.message


# --- WebDAV -----------------------------------------------------------------------------------------------------------


def test_webdav_objects_are_deleted_and_neighbours_stay(cli, webdav):
    webdav.put(f"{PACKAGE}/a", f"{PACKAGE}/ab", f"{PACKAGE}/b/c")
    answer = good(cli(webdav.storages(), "delete", "default", f"{PACKAGE}/a", f"{PACKAGE}/gone", "not/there/at/all"))
    assert answer.stdout == b"3\n"
    assert webdav.objects() == {f"{PACKAGE}/ab", f"{PACKAGE}/b/c"}


def test_webdav_odd_keys(cli, webdav):
    webdav.put(*ODD)
    assert good(cli(webdav.storages(), "list", "default", f"{PROJECT}/packages/")).keys == sorted(ODD, key=str.encode)
    for key in ODD:
        webdav.put(*ODD)
        good(cli(webdav.storages(), "delete", "default", key))
        assert webdav.objects() == set(ODD) - {key}
        good(cli(webdav.storages(), "put", "default", key, "text/plain", "again"))
        assert webdav.get(key) == "again"


def test_webdav_list_goes_into_all_collections_that_it_must(cli, webdav):
    keys = ["p/1/a", "p/1/b/c/d", "p/10/a", "p/2", "q/1"]
    webdav.put(*keys)
    assert good(cli(webdav.storages(), "list", "default", "p/")).keys == ["p/1/a", "p/1/b/c/d", "p/10/a", "p/2"]
    assert good(cli(webdav.storages(), "list", "default", "")).keys == sorted(keys)
    webdav.proxy.requests.clear()
    assert good(cli(webdav.storages(), "list", "default", "p/1/")).keys == ["p/1/a", "p/1/b/c/d"]
    assert good(cli(webdav.storages(), "list", "default", "p/1")).keys == ["p/1/a", "p/1/b/c/d", "p/10/a"]
    assert good(cli(webdav.storages(), "list", "default", "none/at/all/")).keys == []
    assert not any("/q/" in request for request in webdav.requests)


def test_webdav_list_of_many(cli, webdav):
    keys = [f"p/{i % 7}/{i:04}" for i in range(1500)]
    webdav.put(*keys)
    assert good(cli(webdav.storages(), "list", "default", "p/")).keys == sorted(keys)


def test_webdav_put_makes_its_collections_once(cli, webdav):
    storages = webdav.storages()
    good(cli(storages, "put", "default", "new/and/deep ü/file", "text/plain", "one"))
    assert webdav.get("new/and/deep ü/file") == "one"
    webdav.proxy.requests.clear()
    good(cli(storages, "put", "default", "new/and/deep ü/file", "text/plain", "two"))
    assert webdav.get("new/and/deep ü/file") == "two"
    good(cli(storages, "put", "default", "new/and/other/file", "text/plain", ""))
    assert webdav.get("new/and/other/file") == ""
    assert [request.split()[0] for request in webdav.requests] == ["PUT", "PUT", "MKCOL", "MKCOL", "MKCOL", "PUT"]


@pytest.mark.parametrize("user", ["qfield%20cloud:wrongpass@", ""])
def test_webdav_wrong_password_and_none(cli, webdav, user):
    webdav.put("a")
    url = f"http://{user}127.0.0.1:{webdav.proxy.port}/dav"
    answer = cli(webdav.storages(webdav_url=url), "delete", "default", "a")
    assert (answer.kind, answer.status) == ("refused", 401)
    assert "wrongpass" not in answer.message
    assert webdav.objects() == {"a"}


def test_webdav_no_message_has_the_password(cli, webdav):
    for act in (webdav.down, lambda: webdav.fail(403), lambda: webdav.fail(500), webdav.cut):
        act()
        answer = cli(webdav.storages(), "delete", "default", "a")
        assert answer.code == 1
        assert "ss@wo" not in answer.message and "p%C3%A4" not in answer.message and "qfield" not in answer.message
        webdav.behave()


@pytest.mark.parametrize("key", ["", "/", "/a", "a/../b", "../b", "a/./b", "p//a", "p/"])
def test_webdav_keys_that_are_no_object(cli, webdav, key):
    webdav.put("p/a", "b")
    webdav.proxy.requests.clear()
    assert cli(webdav.storages(), "delete", "default", key).kind == "invalid"
    assert webdav.requests == []
    assert webdav.objects() == {"p/a", "b"}


@pytest.mark.parametrize("key", ["", "/", "/a", "a/../b", "..", "a/./b"])
def test_s3_keys_that_are_no_object(cli, s3, key):
    s3.proxy.requests.clear()
    assert cli(s3.storages(), "delete", "default", key).kind == "invalid"
    assert s3.requests == []
