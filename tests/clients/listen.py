"""Clients of others in Python, each used as its README says, until the test ends them.

Reads one JSON object from its arguments and writes one JSON object a line: what each client got, and each time it has to
come back.
"""

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
import threading
import time

import aiohttp
import httpx
import httpx_sse
import requests
import sseclient

PAUSE = 0.2
TOPICS = {"topics": "a.*"}

# A client may print what it likes: the test reads what goes to the standard output that the process began with.
OUT = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
LOCK = threading.Lock()


class Listener:
    """What one client got, in the words of a program that uses it."""

    def __init__(self, name, route):
        self.name = f"{name} {route['name']}"
        self.url = route["url"] + "/sse/real-time"
        self.token = route["token"]
        self.last = None

    def headers(self):
        headers = {"Authorization": f"Bearer {self.token}"}
        return headers if self.last is None else {**headers, "Last-Event-ID": self.last}

    def heard(self, event, position, data):
        self.tell(event=event, id=position, data=json.loads(data))
        self.last = position or self.last

    def failed(self, why):
        self.tell(failed=str(why))

    def tell(self, **what):
        with LOCK:
            print(json.dumps({"client": self.name, **what}), file=OUT, flush=True)


class Blocks:
    """A parser as people write it themselves: fields until an empty line."""

    def __init__(self, listener):
        self.listener, self.fields = listener, {}

    def line(self, line):
        line = line.rstrip("\r\n")
        if not line:
            fields, self.fields = self.fields, {}
            if fields:
                self.listener.heard(fields.get("event", "message"), fields.get("id"), fields["data"])
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            self.fields[name] = value.removeprefix(" ")


def httpx_sse_client(it):
    with httpx.Client(timeout=None) as client:
        with httpx_sse.connect_sse(client, "GET", it.url, params=TOPICS, headers=it.headers()) as source:
            for event in source.iter_sse():
                it.heard(event.event, event.id, event.data)


def sseclient_py(it):
    response = requests.get(it.url, params=TOPICS, headers=it.headers(), stream=True)
    response.raise_for_status()
    for event in sseclient.SSEClient(response).events():
        it.heard(event.event, event.id, event.data)


def sseclient_(it):
    address = importlib.util.spec_from_file_location("sseclient_", os.environ["SSECLIENT"])
    module = importlib.util.module_from_spec(address)
    address.loader.exec_module(module)
    headers = {"Authorization": f"Bearer {it.token}"}
    client = module.SSEClient(it.url, last_id=it.last, retry=PAUSE * 1000, params=TOPICS, headers=headers)
    for event in client:
        # It does not take HTTP's chunks apart, and the last of them looks like an event to it.
        if event.data:
            it.heard(event.event, event.id, event.data)


def aiohttp_(it):
    async def listen():
        patience = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(timeout=patience, raise_for_status=True) as session:
            async with session.get(it.url, params=TOPICS, headers=it.headers()) as response:
                blocks = Blocks(it)
                async for line in response.content:
                    blocks.line(line.decode())

    asyncio.run(listen())


def curl(it):
    headers = [word for name, value in it.headers().items() for word in ("-H", f"{name}: {value}")]
    command = ["curl", "--silent", "--show-error", "--fail", "--no-buffer", *headers]
    program = subprocess.Popen([*command, it.url + "?topics=a.*"], stdout=subprocess.PIPE, text=True)
    blocks = Blocks(it)
    for line in program.stdout:
        blocks.line(line)
    if program.wait() != 0:
        raise OSError(f"curl ended with {program.returncode}")


CLIENTS = {
    "httpx-sse": httpx_sse_client,
    "sseclient-py": sseclient_py,
    "sseclient": sseclient_,
    "aiohttp": aiohttp_,
    "curl": curl,
}
# What a broken connection looks like; anything else is a fault of what was sent.
BROKEN = (httpx.HTTPError, requests.RequestException, aiohttp.ClientError, OSError)


def come_back(client, it):
    while True:
        try:
            client(it)
            it.failed("the stream ended")
        except BROKEN as error:
            it.failed(repr(error))
        except Exception as error:
            it.tell(fault=repr(error))
            return
        time.sleep(PAUSE)


for route in json.loads(sys.argv[1])["routes"]:
    for name, client in CLIENTS.items():
        threading.Thread(target=come_back, args=(client, Listener(name, route)), daemon=True).start()
sys.stdin.read()  # until the test is over
os._exit(0)
