"""FLEXT: the view of its guide in Django, asked by somebody who is not signed in and by somebody who is."""

import json
import os
import pathlib
import re

import django
from django.conf import settings
from django.test import RequestFactory

# Whoever is not signed in is sent to a page for that, which is looked for among the addresses of this module: none.
urlpatterns = []
apps = ["django.contrib.auth", "django.contrib.contenttypes"]
settings.configure(INSTALLED_APPS=apps, ROOT_URLCONF=__name__, ALLOWED_HOSTS=["testserver"])
django.setup()
os.environ["HUB_KEY"] = os.environ["TOKEN"]

guide = pathlib.Path(__file__).parent.parent.parent / "docs" / "guides" / "flext.md"
code = re.search(r"```python\n(.*?)```", guide.read_text(), re.DOTALL).group(1)
exec(code)


class Visitor:
    def __init__(self, is_authenticated):
        self.is_authenticated = is_authenticated


answers = []
for is_authenticated in False, True:
    request = RequestFactory().get("/api/stats/")
    request.user = Visitor(is_authenticated)
    response = StatsAPIView.as_view()(request)
    body = json.loads(response.content) if response.content else None
    answers.append({"status": response.status_code, "body": body})
print(json.dumps(answers))
