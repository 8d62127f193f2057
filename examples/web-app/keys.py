"""Print the keys in the Secret of the Tenant's user, for `eval`: a shell beside `make run` then has what pods get.

    eval "$(.venv/bin/python examples/web-app/keys.py .holdfast/kubeconfig)"

The endpoint is left as it is: the one in the Secret is a name that only pods resolve.
"""

import base64
import shlex
import sys

from kubernetes import client, config

NAMESPACE, SECRET = "web-app", "files-user-web-app"
NAMES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION")


def main() -> None:
    config.load_kube_config(sys.argv[1] if len(sys.argv) > 1 else None)
    secret = client.CoreV1Api().read_namespaced_secret(SECRET, NAMESPACE)
    for name in NAMES:
        print(f"export {name}={shlex.quote(base64.b64decode(secret.data[name]).decode())}")


if __name__ == "__main__":
    main()
