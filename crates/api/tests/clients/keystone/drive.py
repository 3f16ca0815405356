"""openstacksdk with users' passwords: a real Keystone, and our server as its catalog says where it is.

Usage: drive.py KEYSTONE. Ends with "done" if everything was as expected.
"""

import sys

import openstack
from openstack import exceptions


def connect(user, project):
    return openstack.connect(
        load_yaml_config=False,
        load_envvars=False,
        auth={
            "auth_url": sys.argv[1],
            "username": user,
            "password": f"{user}'s",
            "project_name": project,
            "user_domain_id": "default",
            "project_domain_id": "default",
        },
    )


def refused(error, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except error:
        return
    raise AssertionError(f"{call.__name__} was not refused with {error.__name__}")


def main():
    red, blue = connect("alice", "red"), connect("alice", "blue")
    group = red.network.create_security_group(name="web")
    assert group.project_id == red.current_project_id
    assert red.network.find_security_group("web").id == group.id

    # A reader in the other project: it sees nothing of the first, and changes nothing.
    assert blue.network.find_security_group("web") is None
    refused(exceptions.NotFoundException, blue.network.get_security_group, group.id)
    assert [one.name for one in blue.network.security_groups()] == ["default"]
    refused(exceptions.ForbiddenException, blue.network.create_security_group, name="x")

    # What is for admins.
    net = red.network.create_network(name="net")
    port = {"network_id": net.id, "binding_host_id": "rack1"}
    refused(exceptions.ForbiddenException, red.network.create_port, **port)
    root = connect("root", "red")
    assert root.network.create_port(**port).binding_host_id == "rack1"
    assert root.network.get_security_group(group.id).name == "web"
    seen = {one.project_id for one in root.network.security_groups()}
    assert {red.current_project_id, blue.current_project_id} <= seen, seen

    # A role that says nothing to us.
    guest = connect("guest", "red")
    refused(exceptions.HttpException, lambda: list(guest.network.security_groups()))
    red.network.delete_security_group(group, ignore_missing=False)
    print("done")


main()
