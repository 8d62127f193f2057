"""Where the API server is and who we are: from a kubeconfig, or from the pod's service account.

Both the operator's own client and kopf's watches use the one configuration found here, so that they can never
talk to different clusters.
"""

from __future__ import annotations

import kopf
from kubernetes.aio.client import Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

from holdfast_operator.kube.errors import KubeError


class LoginFailed(KubeError):
    """No usable kubeconfig and no service account; the message says what was tried."""


async def load_configuration(kubeconfig: str | None) -> Configuration:
    """The configuration of `kubeconfig`, or of the pod's service account where it is None."""
    configuration = Configuration()
    try:
        if kubeconfig is None:
            load_incluster_config(client_configuration=configuration)
        else:
            await load_kube_config(config_file=kubeconfig, client_configuration=configuration)
    except (ConfigException, OSError) as error:
        source = "the pod's service account" if kubeconfig is None else kubeconfig
        raise LoginFailed(f"cannot log in with {source}: {error}") from error
    # A proxy belongs into the kubeconfig (`proxy-url`); one from the environment is meant for the Internet.
    configuration.client_session_kwargs = {"trust_env": False}
    return configuration


async def connection_for_kopf(configuration: Configuration) -> kopf.ConnectionInfo:
    """The same login for kopf; called again by kopf when the API server answers 401."""
    if configuration.refresh_api_key_hook is not None:
        refreshed = configuration.refresh_api_key_hook(configuration)
        if refreshed is not None:
            await refreshed
    scheme, _, token = (configuration.api_key.get("BearerToken") or "").rpartition(" ")
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        ca_data=configuration.ca_cert_data if configuration.ssl_ca_cert is None else None,
        insecure=not configuration.verify_ssl,
        scheme=(scheme.capitalize() or "Bearer") if token else None,
        token=token or None,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
        proxy_url=configuration.proxy,
    )
