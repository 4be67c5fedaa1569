"""An engine behind tcp://, with TLS and certificates as the docker client's: DOCKER_TLS_VERIFY, DOCKER_CERT_PATH."""

import os
import socket
import ssl
import subprocess
import threading

import pytest


def openssl(directory, *args):
    subprocess.run(["openssl", *args], cwd=directory, check=True, capture_output=True)


def make_certificates(directory):
    """A CA, a server's certificate for 127.0.0.1, and a client's, under the names that the docker client uses."""
    openssl(directory, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca-key.pem", "-out", "ca.pem",
            "-subj", "/CN=test CA", "-days", "2")
    for name, subject, extension in (
        ("server", "/CN=engine", "subjectAltName=IP:127.0.0.1"),
        ("client", "/CN=worker", "extendedKeyUsage=clientAuth"),
    ):
        (directory / f"{name}.ext").write_text(extension + "\n")
        openssl(directory, "req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}-key.pem", "-out", f"{name}.csr",
                "-subj", subject)
        openssl(directory, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca-key.pem",
                "-CAcreateserial", "-out", f"{name}.pem", "-days", "2", "-extfile", f"{name}.ext")
    os.rename(directory / "client.pem", directory / "cert.pem")
    os.rename(directory / "client-key.pem", directory / "key.pem")


class TlsEngine:
    """Takes TLS connections of clients whose certificate the CA has signed, and passes them on to the engine's socket."""

    def __init__(self, directory, engine_socket):
        self.engine_socket = engine_socket
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(directory / "server.pem", directory / "server-key.pem")
        self.context.load_verify_locations(directory / "ca.pem")
        self.context.verify_mode = ssl.CERT_REQUIRED
        self._listen()

    def _listen(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"tcp://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        try:
            client = self.context.wrap_socket(client, server_side=True)
            engine = socket.socket(socket.AF_UNIX)
            engine.connect(self.engine_socket)
        except OSError:
            client.close()
            return
        for source, target in ((client, engine), (engine, client)):
            threading.Thread(target=self._pass, args=(source, target), daemon=True).start()

    @staticmethod
    def _pass(source, target):
        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            target.close()

    def close(self):
        self.listener.close()


class PlainEngine(TlsEngine):
    """The same without TLS."""

    def __init__(self, engine_socket):  # pylint: disable=super-init-not-called
        self.engine_socket, self.context = engine_socket, self
        self._listen()

    @staticmethod
    def wrap_socket(client, server_side):  # pylint: disable=unused-argument
        return client


@pytest.fixture
def certificates(tmp_path):
    make_certificates(tmp_path)
    return tmp_path


@pytest.fixture
def tls_engine(certificates, ground):
    made = TlsEngine(certificates, ground.engine.socket_path)
    yield made
    made.close()


def test_a_job_over_tls(database, worker, tls_engine, certificates):
    job = database.job(database.project(qgis_file="offline.qgs"), "package")
    output = worker.run("run", "--drain", DOCKER_HOST=tls_engine.host, DOCKER_TLS_VERIFY="1",
                        DOCKER_CERT_PATH=str(certificates))
    assert output.returncode == 0, output
    assert database.get("core_job", job["id"])["status"] == "finished"


def test_a_server_of_another_ca_is_refused(worker, tls_engine, certificates):
    openssl(certificates, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "other-key.pem", "-out", "ca.pem",
            "-subj", "/CN=other CA", "-days", "2")
    output = worker.run("run", "--drain", DOCKER_HOST=tls_engine.host, DOCKER_TLS_VERIFY="1",
                        DOCKER_CERT_PATH=str(certificates))
    assert output.returncode == 3
    address = tls_engine.host.removeprefix("tcp://")
    assert any(address in m and "certificate problem" in m for m in output.messages("error")), output


def sign(directory, name, subject, extension, *dates):
    """Signs a further certificate with the CA; its key has the name, too."""
    (directory / f"{name}.ext").write_text(extension + "\n")
    openssl(directory, "req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}-key.pem", "-out", f"{name}.csr",
            "-subj", subject)
    openssl(directory, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca-key.pem",
            "-CAcreateserial", "-out", f"{name}.pem", "-extfile", f"{name}.ext", *(dates or ("-days", "2")))


@pytest.mark.parametrize("subject, dates, said", [
    ("subjectAltName=IP:127.0.0.1", ("-days", "-1"), "expired"),
    ("subjectAltName=DNS:other.example", (), "subject name matches target host name"),
])
def test_a_certificate_of_the_server_that_is_wrong(worker, tls_engine, certificates, subject, dates, said):
    """Expired, or of another host: what is wrong is said, and nothing is sent to it."""
    sign(certificates, "wrong", "/CN=engine", subject, *dates)
    tls_engine.context.load_cert_chain(certificates / "wrong.pem", certificates / "wrong-key.pem")
    output = worker.run("run", "--drain", DOCKER_HOST=tls_engine.host, DOCKER_TLS_VERIFY="1",
                        DOCKER_CERT_PATH=str(certificates))
    assert output.returncode == 3
    address = tls_engine.host.removeprefix("tcp://")
    assert any(address in m and said in m for m in output.messages("error")), output


@pytest.mark.parametrize("dates, ca", [((), "other"), (("-days", "-1"), None)], ids=["another CA", "expired"])
def test_a_certificate_of_ours_that_is_wrong(worker, tls_engine, certificates, dates, ca):
    """The engine refuses it; what it says is passed on, or where to look."""
    sign(certificates, "mine", "/CN=worker", "extendedKeyUsage=clientAuth", *dates)
    if ca:
        openssl(certificates, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "mine-key.pem", "-out",
                "mine.pem", "-subj", "/CN=somebody", "-days", "2")
    os.rename(certificates / "mine.pem", certificates / "cert.pem")
    os.rename(certificates / "mine-key.pem", certificates / "key.pem")
    output = worker.run("run", "--drain", DOCKER_HOST=tls_engine.host, DOCKER_TLS_VERIFY="1",
                        DOCKER_CERT_PATH=str(certificates))
    assert output.returncode == 3
    address = tls_engine.host.removeprefix("tcp://")
    assert any(address in m and ("alert" in m or "does it accept the certificate" in m) for m in output.messages("error")), output


def test_plain_http_to_a_server_of_tls(worker, tls_engine):
    """DOCKER_TLS_VERIFY was forgotten."""
    output = worker.run("run", "--drain", DOCKER_HOST=tls_engine.host)
    assert output.returncode == 3
    assert any("DOCKER_TLS_VERIFY" in m for m in output.messages("error")), output


def test_tls_to_a_server_of_plain_http(worker, ground, certificates):
    """DOCKER_TLS_VERIFY is set, and the port is another one's."""
    plain = PlainEngine(ground.engine.socket_path)
    output = worker.run("run", "--drain", DOCKER_HOST=plain.host, DOCKER_TLS_VERIFY="1",
                        DOCKER_CERT_PATH=str(certificates))
    plain.close()
    assert output.returncode == 3
    assert any("wrong version number" in m for m in output.messages("error")), output


def test_a_missing_certificate_is_named(worker, tls_engine, certificates):
    os.remove(certificates / "key.pem")
    output = worker.run("run", "--drain", DOCKER_HOST=tls_engine.host, DOCKER_TLS_VERIFY="1",
                        DOCKER_CERT_PATH=str(certificates))
    assert output.returncode == 2
    assert any("DOCKER_CERT_PATH" in m and "key.pem" in m for m in output.messages("error")), output


def test_plain_tcp(database, worker, ground):
    """Without TLS, as behind a proxy for the socket."""
    plain = PlainEngine(ground.engine.socket_path)
    job = database.job(database.project(qgis_file="offline.qgs"), "package")
    output = worker.run("run", "--drain", DOCKER_HOST=plain.host)
    plain.close()
    assert output.returncode == 0, output
    assert database.get("core_job", job["id"])["status"] == "finished"
