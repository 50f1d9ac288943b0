"""Serve what the fakes of Dynamo have in common. Standard library only: they run as programs of their own."""

import json
import urllib.request
from http.server import BaseHTTPRequestHandler

METRICS = """\
# TYPE dynamo_component_requests_total counter
dynamo_component_requests_total{{dynamo_endpoint="generate"}} {requests}
dynamo_component_inflight_requests{{dynamo_endpoint="generate"}} {in_flight}
"""


class DynamoHandler(BaseHTTPRequestHandler):
    """Answer /metrics, /v1/models, /health and requests to a worker or an engine with text."""

    def do_GET(self):
        if self.path == "/metrics":
            requests, in_flight = self.request_counts()
            self.answer(METRICS.format(requests=requests, in_flight=in_flight))
        elif self.path == "/v1/models":
            self.answer(json.dumps({"data": [{"id": model} for model in self.served_models()]}))
        elif self.path == "/health":
            instances = [{"component": name, "endpoint": "generate"} for name in self.components()]
            self.answer(json.dumps({"instances": instances}))
        else:
            self.count_work()
            self.answer("")

    def request_counts(self):
        """Return how many requests a worker received and how many of them are in flight."""
        raise NotImplementedError

    def served_models(self):
        """Return the names of the models that the frontend serves."""
        raise NotImplementedError

    def components(self):
        """Return the component of every registered worker."""
        raise NotImplementedError

    def count_work(self):
        """Count one request to this worker."""
        raise NotImplementedError

    def answer(self, text):
        """Send a whole response with status 200."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text.encode())

    def read_request(self):
        """Return the JSON body of a POST."""
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def log_message(self, *_):
        """Print nothing."""


def send_work(address):
    """Let the worker at HOST:PORT count one request."""
    urllib.request.urlopen(f"http://{address}/work", timeout=5).close()


def one_token_stream(request):
    """Return the server-sent events of a completion: one token, then the usage that was requested."""
    usage = {"prompt_tokens": len(request["prompt"]), "completion_tokens": request["max_tokens"]}
    events = [{"choices": [{"text": "a"}]}, {"choices": [], "usage": usage}]
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
