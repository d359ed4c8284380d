"""LocaNext's exporter and its two hooks, with the names, payloads and calls of its own module."""

import asyncio
import json
import os
from datetime import datetime

import httpx

DASHBOARD_WEBHOOK_URL = os.environ["DASHBOARD_WEBHOOK_URL"]
DASHBOARD_WEBHOOK_TOKEN = os.environ["DASHBOARD_WEBHOOK_TOKEN"]


class WebhookExporter:
    def __init__(self):
        self.url = DASHBOARD_WEBHOOK_URL
        self.client = httpx.AsyncClient(timeout=30)
        self.headers = {
            "Content-Type": "application/json",
            "Authorization": f"Bearer {DASHBOARD_WEBHOOK_TOKEN}",
        }

    async def post(self, url, payload):
        # The exporter counts on an exception for whatever is no success.
        response = await self.client.post(url, json=payload, headers=self.headers)
        response.raise_for_status()
        return response

    async def send_metrics(self, metrics):
        payload = {"source": "locanext", "timestamp": datetime.utcnow().isoformat(), "metrics": metrics}
        return await self.post(self.url, payload)

    async def send_event(self, event_type, data):
        payload = {
            "source": "locanext",
            "timestamp": datetime.utcnow().isoformat(),
            "event_type": event_type,
            "data": data,
        }
        return await self.post(self.url.replace("/metrics", "/events"), payload)


METRICS = {
    "user_metrics": {"active_users": 15, "logins_today": 42, "total_users": 100},
    "translation_metrics": {"files_uploaded_today": 8, "total_rows": 150000, "rows_modified_today": 1250},
    "system_metrics": {"cpu_percent": 25.5, "memory_percent": 60.2, "disk_percent": 45.0},
}

EVENTS = [
    ("user_login", {"username": "john.doe", "ip": "10.0.0.7", "timestamp": "2025-12-16T12:05:30Z"}),
    ("user_logout", {"username": "john.doe", "session_duration": 12.5}),
    ("file_upload", {"user": "john.doe", "filename": "game_strings.xlsx", "size_bytes": 524288, "project_id": 42}),
    ("file_export", {"user": "john.doe", "filename": "out.xlsx", "format": "xlsx"}),
    ("translation_saved", {"user": "john.doe", "file_id": 7, "row_count": 3}),
    ("tm_match_applied", {"user": "john.doe", "match_percent": 98.5, "source": "Übersetzung"}),
    ("error", {"type": "ValueError", "message": "no", "user": None}),
]


async def main():
    exporter = WebhookExporter()
    answers = [(await exporter.send_metrics(METRICS)).json()]
    for event_type, data in EVENTS:
        answers.append((await exporter.send_event(event_type, data)).json())
    # The json module writes what JSON has no words for; httpx itself refuses to.
    odd = {"source": "locanext", "timestamp": "2025-12-16T12:00:00Z"}
    odd["metrics"] = {"test": True, "ratio": float("nan"), "most": float("inf"), "name": "x", "list": [[1]], "none": None}
    response = await exporter.client.post(exporter.url, content=json.dumps(odd), headers=exporter.headers)
    response.raise_for_status()
    answers.append(response.json())
    print(json.dumps(answers))


asyncio.run(main())
