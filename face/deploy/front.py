"""Writes the front: an nginx that lets clients reach Flower's fleet interface, and nothing else of the SuperLink.

Who reaches the control interface can start runs, whose code runs on the server and on every client. Flower 1.41 serves
it at the same port as the fleet interface, so that the SuperLink listens on loopback alone, and this stands before it.

Between the front and the SuperLink is TLS again: Flower refuses SuperNodes' keys without it, and a program that took
the SuperLink's port while that is down can't pass for it.

Our choice: what passes is matched against the request as it came, not against what nginx makes of its path, and is
passed on as it came; so there is no second reading of dots, slashes and percent signs to disagree with the first.
"""

from fmtda.face.deploy.deployment import Deployment
from fmtda.face.deploy.flower_commands import LOOPBACK

PASSES = "^POST /v1/fleet/[a-z-]+$"
"""Method and path of the requests that a SuperNode sends."""

NGINX = """\
# The front of the SuperLink, started in this folder by: nginx -p . -e stderr -c nginx.conf
daemon off;
pid run/nginx.pid;
error_log stderr warn;
worker_processes auto;

events {{
    worker_connections 4096;
}}

http {{
    access_log off;
    server_tokens off;
    client_body_temp_path run/body;
    proxy_temp_path run/proxy;
    fastcgi_temp_path run/fastcgi;
    uwsgi_temp_path run/uwsgi;
    scgi_temp_path run/scgi;

    map "$request_method $request_uri" $passes {{
        default 0;
        "~{passes}" 1;
    }}

    server {{
        listen {listen} ssl;
        ssl_certificate server.crt;
        ssl_certificate_key server.key;
        ssl_protocols TLSv1.2 TLSv1.3;

        if ($passes = 0) {{
            return 403;
        }}

        location / {{
            proxy_pass https://{loopback}:{port};
            proxy_ssl_trusted_certificate ../ca.crt;
            proxy_ssl_name localhost;
            proxy_ssl_verify on;
            proxy_http_version 1.1;
            proxy_set_header Connection "";

            # Flower cuts models into pieces of 5 MB; 2 GB is the most that its messages may have.
            client_max_body_size 2g;
            proxy_request_buffering off;
            proxy_buffering off;
            proxy_read_timeout 1h;
            proxy_send_timeout 1h;
        }}
    }}
}}
"""


def nginx(deployment: Deployment) -> str:
    """Write the configuration file."""
    host = "[::]" if ":" in deployment.server else "0.0.0.0"
    return NGINX.format(
        passes=PASSES, listen=f"{host}:{deployment.port}", loopback=LOOPBACK, port=deployment.superlink_port
    )
