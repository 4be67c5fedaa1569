"""Runs an object store, in the environment of stores-requirements.txt:

    stores_server.py s3 | webdav DIRECTORY USER PASSWORD

The first line on stdout says where it is; the end of stdin ends it. The S3 one checks signatures, and does what lines
of JSON on stdin ask for, each with a line of JSON in answer: that is how tests look at what is in it.
"""

import json
import logging
import os
import sys
import threading

POLICY = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


class S3:
    """moto's S3 with one user, whose requests it checks the signatures of."""

    def __init__(self):
        import boto3
        from moto import settings
        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        self.port = server.get_host_and_port()[1]
        self._boto3, self._endpoint = boto3, f"http://127.0.0.1:{self.port}"
        iam = self._client("iam", "none", "none")
        iam.create_user(UserName="qfieldcloud")
        key = iam.create_access_key(UserName="qfieldcloud")["AccessKey"]
        iam.put_user_policy(UserName="qfieldcloud", PolicyName="all", PolicyDocument=json.dumps(POLICY))
        self.access_key, self.secret_key = key["AccessKeyId"], key["SecretAccessKey"]
        settings.INITIAL_NO_AUTH_ACTION_COUNT = 0.0
        self._s3 = self._client("s3", self.access_key, self.secret_key)

    def _client(self, service, access_key, secret_key):
        return self._boto3.client(
            service,
            endpoint_url=self._endpoint,
            region_name="us-east-1",
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
        )

    def where(self):
        return {"port": self.port, "access_key": self.access_key, "secret_key": self.secret_key}

    # What is asked for on stdin

    def create_bucket(self, bucket, versioned):
        self._s3.create_bucket(Bucket=bucket)
        if versioned:
            self._s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})

    def put(self, bucket, keys, text):
        for key in keys:
            self._s3.put_object(Bucket=bucket, Key=key, Body=text.encode())

    def fill(self, bucket, keys):
        from moto.core import DEFAULT_ACCOUNT_ID
        from moto.s3.models import s3_backends

        for key in keys:
            s3_backends[DEFAULT_ACCOUNT_ID]["aws"].put_object(bucket, key, b"")

    def delete(self, bucket, key):
        self._s3.delete_object(Bucket=bucket, Key=key)

    def get(self, bucket, key):
        found = self._s3.get_object(Bucket=bucket, Key=key)
        return {"text": found["Body"].read().decode(), "content_type": found["ContentType"]}

    def objects(self, bucket):
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def versions(self, bucket):
        """[key, is it a delete marker] of each version."""
        pages = self._s3.get_paginator("list_object_versions").paginate(Bucket=bucket)
        return [
            [item["Key"], kind == "DeleteMarkers"]
            for page in pages
            for kind in ("Versions", "DeleteMarkers")
            for item in page.get(kind, [])
        ]


def serve_s3():
    store = S3()
    print(json.dumps(store.where()), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer = {"result": getattr(store, asked.pop("do"))(**asked)}
        except Exception as error:  # noqa: BLE001 (the test is told)
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


def serve_webdav(directory, user, password):
    """wsgidav with its files in `directory`, below /dav."""
    from cheroot import wsgi
    from wsgidav.wsgidav_app import WsgiDAVApp

    logging.disable(logging.CRITICAL)
    app = WsgiDAVApp(
        {
            "host": "127.0.0.1",
            "port": 0,
            "provider_mapping": {"/dav": {"root": directory}},
            "simple_dc": {"user_mapping": {"*": {user: {"password": password}}}},
            "http_authenticator": {"accept_basic": True, "accept_digest": False, "default_to_digest": False},
            "verbose": 0,
            "logging": {"enable": False},
        }
    )
    server = wsgi.Server(("127.0.0.1", 0), app)
    server.prepare()
    threading.Thread(target=server.serve, daemon=True).start()
    print(json.dumps({"port": server.bind_addr[1]}), flush=True)
    sys.stdin.read()


def main():
    out = os.dup(1)
    os.dup2(2, 1)  # what the servers print is no answer
    sys.stdout = os.fdopen(out, "w")
    if sys.argv[1] == "s3":
        serve_s3()
    else:
        serve_webdav(*sys.argv[2:])
    os._exit(0)  # threads of the servers are not waited for


main()
