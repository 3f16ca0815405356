"""Who is in a new Keystone: a service account, projects, users.

Usage: people.py KEYSTONE NETWORK. NETWORK is where the server listens that the catalog names.
"""

import sys

import openstack

# In which project, with which roles. Keystone gives who is an admin the others, too.
PEOPLE = {
    "portcullis": [("service", "service")],
    "alice": [("red", "member"), ("blue", "reader")],
    "root": [("red", "admin")],
    "guest": [("red", "stranger")],
    # Names tokens' owners to nobody: no account for a server.
    "outsider": [("service", "member")],
}

identity = openstack.connect(
    load_yaml_config=False,
    load_envvars=False,
    auth={
        "auth_url": sys.argv[1],
        "username": "admin",
        "password": "administers",
        "project_name": "admin",
        "user_domain_id": "default",
        "project_domain_id": "default",
    },
    identity_endpoint_override=sys.argv[1],
    verify=False,
).identity

catalog = {"keystone": ("identity", sys.argv[1]), "portcullis": ("network", sys.argv[2])}
for name, (kind, url) in catalog.items():
    service = identity.create_service(name=name, type=kind)
    identity.create_endpoint(
        service_id=service.id, interface="public", region_id="here", url=url
    )
projects = {name: identity.create_project(name=name) for name in ("service", "red", "blue")}
roles = {role.name: role for role in identity.roles()}
roles["stranger"] = identity.create_role(name="stranger")
for name, places in PEOPLE.items():
    user = identity.create_user(name=name, password=f"{name}'s")
    for project, role in places:
        identity.assign_project_role_to_user(projects[project], user, roles[role])
print("done")
