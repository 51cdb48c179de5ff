"""A receiver of OTLP made of the official protobuf classes: what it gets it prints, one JSON object a line.

usage: otlp_receiver.py [--fail N] [--exhausted N] [--refuse N] [--reject N] [--slow SECONDS] [--tls CERTIFICATE KEY]

Of the requests with logs the first N fail for the moment (503, UNAVAILABLE), are throttled (429, RESOURCE_EXHAUSTED, for a second), are
refused for good (400, INVALID_ARGUMENT), or have N records rejected. --slow waits before each answer.
"""

import argparse
import json
import ssl
import sys
import threading
import time
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc as logs_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_grpc

parser = argparse.ArgumentParser()
for option in ("fail", "exhausted", "refuse", "reject"):
    parser.add_argument(f"--{option}", type=int, default=0)
parser.add_argument("--slow", type=float, default=0)
parser.add_argument("--tls", nargs=2)
options = parser.parse_args()
lock = threading.Lock()


def tell(what):
    with lock:
        print(json.dumps(what), flush=True)


def verdict():
    """What to do with the next request with logs."""
    with lock:
        for name in ("fail", "exhausted", "refuse"):
            left = getattr(options, name)
            if left > 0:
                setattr(options, name, left - 1)
                return name
    return "take"


def got(via, signal, request, headers):
    """Answers a request: a verdict and, if it is taken, the response."""
    time.sleep(options.slow)
    what = verdict() if signal == "logs" else "take"
    tell({"via": via, "signal": signal, "verdict": what, "headers": headers, "request": MessageToDict(request)})
    response = logs.ExportLogsServiceResponse() if signal == "logs" else metrics.ExportMetricsServiceResponse()
    if signal == "logs" and options.reject:
        response.partial_success.rejected_log_records = options.reject
        response.partial_success.error_message = "some are too old"
    return what, response


class Grpc(logs_grpc.LogsServiceServicer, metrics_grpc.MetricsServiceServicer):
    def Export(self, request, context):
        signal = "logs" if isinstance(request, logs.ExportLogsServiceRequest) else "metrics"
        headers = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        what, response = got("grpc", signal, request, headers)
        if what == "fail":
            context.abort(grpc.StatusCode.UNAVAILABLE, "away for a moment")
        if what == "refuse":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not like this")
        if what == "exhausted":
            detail = Any()
            detail.Pack(RetryInfo(retry_delay=Duration(seconds=1)))
            status = Status(code=grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], message="too much", details=[detail])
            context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too much")
        return response


class Http(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        kinds = {"/v1/logs": ("logs", logs.ExportLogsServiceRequest), "/v1/metrics": ("metrics", metrics.ExportMetricsServiceRequest)}
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path not in kinds or self.headers["content-type"] != "application/x-protobuf":
            return self.reply(404, b"", {})
        signal, kind = kinds[self.path]
        what, response = got("http", signal, kind.FromString(body), {key.lower(): value for key, value in self.headers.items()})
        if what == "fail":
            return self.reply(503, b"", {})
        if what == "exhausted":
            return self.reply(429, b"", {"retry-after": "1"})
        if what == "refuse":
            return self.reply(400, Status(message="not like this").SerializeToString(), {})
        return self.reply(200, response.SerializeToString(), {})

    def reply(self, code, body, headers):
        self.send_response(code)
        for name, value in {"content-type": "application/x-protobuf", "content-length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


calls = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
logs_grpc.add_LogsServiceServicer_to_server(Grpc(), calls)
metrics_grpc.add_MetricsServiceServicer_to_server(Grpc(), calls)
if options.tls:
    chain, key = (open(path, "rb").read() for path in options.tls)
    grpc_port = calls.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, chain)]))
else:
    grpc_port = calls.add_insecure_port("127.0.0.1:0")
calls.start()
posts = ThreadingHTTPServer(("127.0.0.1", 0), Http)
if options.tls:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*options.tls)
    posts.socket = context.wrap_socket(posts.socket, server_side=True)
threading.Thread(target=posts.serve_forever, daemon=True).start()
tell({"grpc": grpc_port, "http": posts.server_address[1]})
# Whoever started it closes this.
sys.stdin.read()
