"""A Keystone of its own in a directory, on the loopback, until it is killed.

Usage: serve.py DIRECTORY PORT SECONDS [CERTIFICATE KEY]. PORT 0 is any free one; tokens live SECONDS. The
directory is made ready the first time, as its administrators do it. Says "listens on PORT", and which requests
come, on its standard error.
"""

import pathlib
import subprocess
import sys

directory, port, seconds = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
tls = tuple(sys.argv[4:6]) or None
settings = directory / "keystone.conf"


def manage(*arguments):
    keystone_manage = pathlib.Path(sys.executable).parent / "keystone-manage"
    command = [keystone_manage, "--config-file", settings, *arguments]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, f"{arguments}: {ran.stdout} {ran.stderr}"


def make():
    settings.write_text(
        f"""
[DEFAULT]
log_file = {directory}/log
[database]
connection = sqlite:///{directory}/database
[token]
expiration = {seconds}
[identity]
# Passwords of tests: quick to compare.
password_hash_rounds = 4
[fernet_tokens]
key_repository = {directory}/fernet
"""
    )
    manage("db_sync")
    manage("fernet_setup", "--keystone-user", "root", "--keystone-group", "root")
    manage("bootstrap", "--bootstrap-password", "administers", "--bootstrap-region-id", "here")


if not settings.exists():
    make()

# Both read their settings from the command line when they are loaded.
sys.argv = ["keystone", "--config-file", str(settings)]
from keystone.server import wsgi  # noqa: E402
from werkzeug.serving import WSGIRequestHandler, make_server  # noqa: E402


class Handler(WSGIRequestHandler):
    def log(self, type, message, *args):
        print(message % args, file=sys.stderr, flush=True)


application = wsgi.initialize_public_application()
server = make_server(
    "127.0.0.1", port, application, threaded=True, request_handler=Handler, ssl_context=tls
)
print("listens on", server.port, flush=True)
server.serve_forever()
