"""`holdfast-local api`: the API server with the Tenant API and the operator's account, and nothing that runs pods.

For whoever plays the node or the operator themselves: tests of the operator under load, and a look at what it makes
of a Tenant without a single process.  Pods stay `Pending`.  The state folder is that of `run`, one at a time; it has
the kubeconfigs of the person and of the operator while the server runs.
"""

from __future__ import annotations

from pathlib import Path

from holdfast_local.run import accounts, cluster
from holdfast_local.run.command import install, raise_descriptor_limit
from holdfast_local.run.interruption import StopRequest
from holdfast_local.run.progress import Progress
from holdfast_local.run.state_directory import StateDirectory
from holdfast_local.run.submission import Submitter


async def serve_api(root: Path, port: int | None, progress: Progress) -> None:
    """Until SIGINT or SIGTERM; raises RunFailed."""
    state = StateDirectory(root)
    state.acquire()
    try:
        state.prepare()
        raise_descriptor_limit()
        request = StopRequest()
        request.listen()
        tokens = accounts.load_or_mint(state)
        async with cluster.api_server(state, port, tokens) as endpoint:
            async with endpoint.connect(tokens.admin) as client:
                await install(Submitter(client), progress)
            progress.line(f"API server on {endpoint.url}, kubeconfig in {state.kubeconfig}")
            await request.stop.wait()
    finally:
        state.release()
