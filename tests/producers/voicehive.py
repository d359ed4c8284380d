"""VoiceHive: its backend's two calls as the guide writes them, and its documents' three requests."""

import json
import os
import pathlib
import re
import time

import requests

os.environ["HUB_KEY"] = os.environ["TOKEN"]

guide = pathlib.Path(__file__).parent.parent.parent / "docs" / "guides" / "voicehive.md"
code = re.search(r"```python\n(.*?)```", guide.read_text(), re.DOTALL).group(1)
exec(code)

record_call_metrics(duration=252, status="success", agent="roxy")
record_call_metrics(duration=264, status="error", agent="roxy")
update_system_metrics(memory_usage=72.0, cpu_usage=35.0, active_calls=8)

API = HUB_URL  # http://localhost:8000 in the documents

# The numbers are there a moment after the events are.
deadline = time.monotonic() + 30
while True:
    response = requests.get(f"{API}/api/dashboard/metrics")
    metrics = response.json()
    if (metrics["total_calls"], metrics["active_calls"]) == (2, 8) or time.monotonic() > deadline:
        break
    time.sleep(0.01)

response = requests.get(f"{API}/api/dashboard/health")
health = response.json()

response = requests.get(f"{API}/api/dashboard/call-volume")
volume_data = response.json()

response = requests.get(f"{API}/api/dashboard/recent-activity")
assert response.status_code == 200
activity = response.json()

print(json.dumps({"metrics": metrics, "health": health, "volume": volume_data, "activity": activity}))
