"""The Python worker of tests/interop.py, which describes the protocol.

With the C worker as a library (its argument), C executes every second line in this process.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Optional

import session_server_store as sss


class Worker:
    def __init__(self) -> None:
        self.store = sss.Store()

    def answer(self, verb: str, words: list[str]) -> object:
        store = self.store
        if verb == "open":
            self.store = sss.Store(words[0], serializer=sss.RAW)
            return ""
        if verb == "create":
            return store.create(unhex(words[0]), principal=unhex(words[1]))
        if verb == "get":
            session = store.get(words[0])
            return session and f"{session.version} {tohex(session.payload)}"
        if verb == "put_if":
            written = store.put_if(words[0], int(words[1]), unhex(words[2]))
            return written and written.version
        if verb == "renew":
            return store.renew(words[0])
        if verb == "delete":
            return "" if store.delete(words[0]) else None
        if verb == "list":
            return len(store.list(unhex(words[0])))
        if verb == "revoke":
            return store.revoke(unhex(words[0]))
        if verb == "count":
            return self.count(words[0], int(words[1]))
        raise ValueError(verb)

    def count(self, sid: str, times: int) -> object:
        while times:
            session = self.store.get(sid)
            if session is None:
                return None
            try:
                self.store.put_if(sid, session.version, b"%d" % (int(session.payload) + 1))
            except sss.ConflictError:
                continue
            print("= counted", flush=True)
            times -= 1
        return ""


def unhex(word: str) -> bytes:
    return bytes.fromhex(word.replace("-", ""))


def tohex(data: bytes) -> str:
    return data.hex() or "-"


def main(library: Optional[str] = None) -> None:
    worker = Worker()
    in_c = ctypes.CDLL(library) if library else None
    for number, line in enumerate(sys.stdin):
        if in_c and number % 2:
            in_c.work(ctypes.create_string_buffer(line.encode()))
            continue
        verb, *words = line.split()
        try:
            answer = worker.answer(verb, words)
        except sss.SessionStoreError as error:
            print(f"= {error.name.lower()}", flush=True)
        else:
            print("= not_found" if answer is None else f"= ok {answer}".rstrip(), flush=True)


main(*sys.argv[1:])
