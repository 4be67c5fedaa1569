"""Stands between a program and the engine and notes which calls are made: to show that two programs make the same."""

import os
import re
import socket
import threading


class Recorder:
    """Listens on `path`; `requests` has (method, path, body) of each call, in the order in which they were whole."""

    def __init__(self, path, engine_path):
        self.path, self.requests = path, []
        self._engine_path, self._lock = engine_path, threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(path)
        self._listener.listen(16)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        os.unlink(self.path)

    def _accept(self):
        while True:
            try:
                program, _ = self._listener.accept()
            except OSError:
                return
            engine = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            engine.connect(self._engine_path)
            for pump in (self._send, program, engine), (self._answer, engine, program):
                threading.Thread(target=pump[0], args=pump[1:], daemon=True).start()

    def _send(self, program, engine):
        buffer = b""
        for data in self._pump(program, engine):
            buffer = self._note(buffer + data)

    def _answer(self, engine, program):
        for _ in self._pump(engine, program):
            pass

    @staticmethod
    def _pump(source, target):
        try:
            while data := source.recv(65536):
                yield data
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def _note(self, buffer):
        """Takes the whole requests out of the buffer; returns the rest."""
        while b"\r\n\r\n" in buffer:
            head, _, rest = buffer.partition(b"\r\n\r\n")
            length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
            size = int(length.group(1)) if length else 0
            if len(rest) < size:
                return buffer
            method, path, _ = head.split(b"\r\n")[0].decode().split(" ")
            with self._lock:
                self.requests.append((method, path, rest[:size]))
            buffer = rest[size:]
        return buffer

    def calls(self):
        """The calls as texts, without what differs from job to job: names and ids."""
        texts = [f"{method} {re.sub('^/v[0-9.]+', '', path)}" for method, path, _ in self.requests]
        texts = [re.sub("[0-9a-f]{64}", "ID", re.sub("name=[^&]+", "name=NAME", text)) for text in texts]
        return [text for text in texts if text != "GET /version"]

    def body(self):
        """What the container was made of."""
        return next(body for method, path, body in self.requests if "/containers/create" in path)
