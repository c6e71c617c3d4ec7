"""Routes and types of plugins that cannot be mounted or described."""

from api_plugins import BRIGHTNESS, ROUTES
from openapi_spec_validator import validate
from workshop import Workshop

PROBLEM = "application/problem+json"

BAD_ROUTES = {
    "twice": """
    one, other = Blueprint("one", __name__), Blueprint("other", __name__)
    one.route("/<int:a>")(lambda a: "a")
    other.route("/<int:b>")(lambda b: "b")
    return [one, other]
""",
    "whole": """
    one = Blueprint("one", __name__)
    one.before_app_request(lambda: None)
    return [one]
""",
    "handler": """
    one = Blueprint("one", __name__)
    one.app_errorhandler(404)(lambda error: "nothing")
    return [one]
""",
    "named": """
    return [Blueprint("one", __name__), Blueprint("one", __name__)]
""",
    "elsewhere": """
    one = Blueprint("one", __name__)
    one.record(lambda state: state.app.add_url_rule("/api/uploads", "mine", lambda: "mine"))
    return [one]
""",
    "schema": """
    one = Blueprint("one", __name__)
    one.route("/a")(one.response(200, object())(lambda: "a"))
    return [one]
""",
    "raises": """
    def recorded(state):
        raise ValueError("not like this")
    one = Blueprint("one", __name__)
    one.record(recorded)
    return [one]
""",
}

# What cannot be described: a result that contains itself, and a type that cannot be copied.
ENDLESS = """
from marshmallow import Schema, fields
from clustr.plugins import Analyzer, Filter, hookimpl

class Endless(Schema):
    name = fields.String()
    price = fields.Decimal()
    inner = fields.Nested(lambda: Endless())

class It(Analyzer):
    name = "endless"
    result_schema = Endless

    def analyze(self, image, context):
        return {"name": "1"}

class Unique(fields.String):
    def __deepcopy__(self, memo):
        raise TypeError("there is only one")

@hookimpl
def clustr_register_analyzers(config):
    return [It()]

@hookimpl
def clustr_register_filters(config):
    return [Filter(analyzer="endless", field="name", type=Unique()),
            Filter(analyzer="endless", field="price", type=fields.Decimal())]
"""

REASONS = {
    "twice": "it has the route GET /api/x/twice/<int> twice",
    "whole": "changes the whole application",
    "handler": "changes the whole application",
    "named": "x-named-one",
    "elsewhere": "the route /api/uploads, which is not below /api/x/elsewhere/",
    "schema": "its routes are described with <object object",
    "raises": "mounting its routes raised ValueError: not like this",
}


def test_routes_that_cannot_be_mounted_take_their_plugin_out_and_nothing_else(servers, tmp_path):
    with Workshop(tmp_path, servers) as workshop:
        for name, body in BAD_ROUTES.items():
            workshop.analyzer(name, "return {}")
            source = (workshop.plugins / f"{name}.py").read_text()
            source = f"from flask_smorest import Blueprint\n{source}"
            hook = f"@hookimpl\ndef clustr_register_blueprints(config, library):{body}"
            workshop.write(name, source + hook)
        workshop.write("brightness", BRIGHTNESS)
        workshop.write("looks", ROUTES)
        workshop.write("endless", ENDLESS)
        client = workshop.app.test_client()
        plugins = {p["name"]: p for p in client.get("/api/plugins").get_json()["data"]}
        for name, reason in REASONS.items():
            assert plugins[name]["state"] == "failed", name
            assert reason in plugins[name]["reason"]
            assert plugins[name]["analyzers"] == []
        assert {plugins[p]["state"] for p in ("looks", "brightness", "endless")} == {"loaded"}
        [upload_id] = workshop.upload()
        assert {a.name for a in workshop.get(upload_id).analyses} == {"brightness", "endless"}
        assert client.get("/api/uploads?analyses.endless.name=1").status_code == 422
        assert client.get("/api/uploads?analyses.endless.price=1.5").status_code == 200
        assert client.get(f"/api/x/looks/looks/{upload_id}").status_code == 200
        assert client.get("/api/nothing").content_type == PROBLEM
        document = client.get("/openapi.json").get_json()
        validate(document)
        assert not any("/x/twice" in path for path in document["paths"])
        assert document["components"]["schemas"]["AnalysisResult_endless"]["type"] == "object"
