"""What users and roles have on AWS and never here: passwords, MFA devices, certificates, instance profiles.

Who deletes a user or a role asks for each of them first, as AWS's guide has it (Terraform's provider does so for every
role, and for users with `force_destroy`); the true answer is that there are none.  Making one is no known operation.
"""

from __future__ import annotations

from holdfast_server.iam.answers import Result
from holdfast_server.iam.call import IamCall
from holdfast_server.iam.errors import IamError
from holdfast_server.iam.pages import page_of
from holdfast_server.iam.users import named_user


def _none(call: IamCall, name: str) -> Result:
    empty: list[str] = []
    return page_of(call.parameters, name, empty, str, str)


async def list_instance_profiles_for_role(call: IamCall) -> Result:
    await call.role(call.parameters.name("RoleName", 128))
    return _none(call, "InstanceProfiles")


async def list_mfa_devices(call: IamCall) -> Result:
    await named_user(call)
    return _none(call, "MFADevices")


async def list_virtual_mfa_devices(call: IamCall) -> Result:
    call.parameters.choice("AssignmentStatus", ("Assigned", "Unassigned", "Any"), "Any")
    return _none(call, "VirtualMFADevices")


async def list_ssh_public_keys(call: IamCall) -> Result:
    await named_user(call)
    return _none(call, "SSHPublicKeys")


async def list_signing_certificates(call: IamCall) -> Result:
    await named_user(call)
    return _none(call, "Certificates")


async def list_service_specific_credentials(call: IamCall) -> Result:
    await named_user(call)
    return _none(call, "ServiceSpecificCredentials")


async def refuse_login_profile(call: IamCall) -> Result:
    """Of GetLoginProfile and DeleteLoginProfile."""
    user = await named_user(call)
    raise IamError("NoSuchEntity", f"Login Profile for User {user.name} cannot be found.")
