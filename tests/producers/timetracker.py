"""TimeTracker's metrics client: the same requests in the same order, and the same idea of success.

It runs in stages (STAGE), between which its state is kept in the file STATE, because the test takes
the hub away in between: `start`, `offline`, `flush`, `restart`.
"""

import json
import os
import platform
import socket
import sys
import uuid
from datetime import datetime

import requests

SERVER = os.environ["METRICS_SERVER_URL"]
API_KEY = os.environ["METRICS_SERVER_API_KEY"]
STATE = os.environ["STATE"]
if os.environ["STAGE"] == "offline":
    # The hub's own port is kept for its return: who connects there waits for that.
    SERVER = "http://127.0.0.1:1"


class Client:
    def __init__(self):
        self.instance_id = None
        self.token = None
        self.registered = False
        self.offline = []
        if os.path.exists(STATE):
            with open(STATE, encoding="utf-8") as file:
                self.__dict__.update(json.load(file))

    def save(self):
        with open(STATE, "w", encoding="utf-8") as file:
            json.dump(self.__dict__, file)

    def request(self, endpoint, data=None):
        headers = {"X-API-Key": API_KEY, "Content-Type": "application/json"}
        try:
            if data is None:
                response = requests.get(SERVER + endpoint, headers=headers, timeout=30)
            else:
                response = requests.post(SERVER + endpoint, headers=headers, json=data, timeout=30)
        except requests.exceptions.RequestException:
            return None
        if response.status_code not in (200, 201):
            print(response.status_code, response.text, file=sys.stderr)
            return None
        return response.json()

    def register(self):
        self.instance_id = self.instance_id or str(uuid.uuid4())
        response = self.request(
            "/api/v1/register",
            {
                "app_identifier": "timetracker",
                "version": "4.5.0",
                "instance_id": self.instance_id,
                "system_metadata": {
                    "os": platform.system(),
                    "version": platform.version(),
                    "architecture": platform.architecture()[0],
                    "machine": platform.machine(),
                    "processor": platform.processor(),
                    "hostname": socket.gethostname(),
                    "local_ip": "127.0.0.1",
                    "python_version": platform.python_version(),
                    "analytics_disabled": False,
                },
                "country": "Unknown",
                "city": "Unknown",
                "license_id": "NO-LICENSE-REQUIRED",
            },
        )
        if response and "instance_id" in response:
            self.instance_id = response["instance_id"]
            self.token = response.get("token")
            self.registered = True
        return self.registered

    def validate(self):
        response = self.request(
            "/api/v1/validate",
            {
                "app_identifier": "timetracker",
                "license_id": "NO-LICENSE-REQUIRED",
                "instance_id": self.instance_id,
            },
        )
        return bool(response and response.get("valid", False))

    def heartbeat(self):
        return bool(self.request("/api/v1/heartbeat", {"instance_id": self.instance_id}))

    def usage(self, points):
        data = {"app_identifier": "timetracker", "instance_id": self.instance_id, "data": points}
        if self.request("/api/v1/data", data):
            self.flush()
            return True
        for point in points:
            point["timestamp"] = datetime.now().isoformat()
            self.offline.append(point)
        return False

    def flush(self):
        points, self.offline = self.offline, []
        if points:
            self.usage(points)

    def feature_used(self, feature):
        metadata = {"feature": feature, "user": "admin"}
        return self.usage(
            [{"key": "usage_event", "value": "feature_used", "type": "string", "metadata": metadata}]
        )


client = Client()
stage = os.environ["STAGE"]
if stage == "start":
    done = [client.register(), client.heartbeat(), client.validate(), client.feature_used("dashboard")]
    done.append(client.feature_used("dashboard"))
    done.append(client.request("/api/v1/status") is not None)
elif stage == "offline":
    # A first send fails and is kept; a failed flush keeps its points twice.
    done = [not client.feature_used("reports"), not client.feature_used("export"), not client.heartbeat()]
    client.offline = client.offline + client.offline
elif stage == "flush":
    kept = [dict(point) for point in client.offline]
    done = [client.feature_used("dashboard"), client.offline == []]
    # The answer to the flush was lost on its way: all of it is sent once more.
    client.offline = kept
    client.flush()
    done += [client.offline == [], client.heartbeat()]
elif stage == "restart":
    client.registered = False
    done = [client.register(), client.heartbeat()]
else:
    sys.exit(f"there is no stage {stage}")
client.save()
print(json.dumps({"done": done, "instance_id": client.instance_id, "token": client.token}))
