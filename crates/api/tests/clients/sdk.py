"""openstacksdk against a server, as its users write it: what it asks is up to it.

Usage: sdk.py URL. Ends with "done" if everything was as expected.
"""

import sys

import openstack
from openstack import exceptions


def refused(error, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except error:
        return
    raise AssertionError(f"{call.__name__} was not refused with {error.__name__}")


def groups(network):
    assert [group.name for group in network.security_groups()] == ["default"]
    group = network.create_security_group(name="web", description="the web")
    assert group.stateful and not group.is_shared
    assert len(group.security_group_rules) == 2
    assert network.find_security_group("web").id == group.id
    assert network.find_security_group("nothing") is None
    assert network.get_security_group(group.id).description == "the web"
    changed = network.update_security_group(group, name="site")
    assert changed.name == "site" and changed.revision_number > 0
    refused(
        exceptions.PreconditionFailedException,
        network.update_security_group,
        group.id,
        if_revision=1,
        name="x",
    )
    refused(exceptions.ConflictException, network.create_security_group, name="default")
    network.delete_security_group(group, ignore_missing=False)
    refused(exceptions.NotFoundException, network.get_security_group, group.id)
    refused(
        exceptions.NotFoundException,
        network.delete_security_group,
        group.id,
        ignore_missing=False,
    )


def rules(network):
    web = network.create_security_group(name="web")
    clients = network.create_security_group(name="clients", stateful=False)
    rule = network.create_security_group_rule(
        security_group_id=web.id,
        direction="ingress",
        ether_type="IPv4",
        protocol="tcp",
        port_range_min=80,
        port_range_max=80,
        remote_ip_prefix="10.0.0.5/24",
    )
    assert (rule.protocol, rule.port_range_min) == ("tcp", 80)
    assert rule.remote_ip_prefix == "10.0.0.5/24"
    assert rule.normalized_cidr == "10.0.0.0/24"
    named = network.create_security_group_rule(
        security_group_id=web.id, direction="ingress", remote_group_id=clients.id
    )
    found = list(network.security_group_rules(security_group_id=web.id, direction="ingress"))
    assert {one.id for one in found} == {rule.id, named.id}
    assert [one.id for one in network.security_group_rules(protocol="tcp")] == [rule.id]
    refused(
        exceptions.ConflictException,
        network.create_security_group_rule,
        security_group_id=web.id,
        direction="ingress",
        remote_group_id=clients.id,
    )
    refused(
        exceptions.BadRequestException,
        network.create_security_group_rule,
        security_group_id=web.id,
        direction="ingress",
        protocol="tcp",
        port_range_min=0,
        port_range_max=80,
    )
    network.delete_security_group_rule(rule, ignore_missing=False)
    network.delete_security_group(clients, ignore_missing=False)
    left = network.get_security_group(web.id).security_group_rules
    assert all(one["direction"] == "egress" for one in left)
    network.delete_security_group(web, ignore_missing=False)
    assert len(list(network.default_security_group_rules())) >= 4


def ports(network):
    net = network.create_network(name="net", mtu=1400)
    assert net.status == "ACTIVE" and net.is_port_security_enabled
    subnet = network.create_subnet(
        network_id=net.id, ip_version=4, cidr="10.0.0.0/24", name="sub"
    )
    assert subnet.gateway_ip == "10.0.0.1"
    assert network.get_network(net.id).subnet_ids == [subnet.id]
    group = network.create_security_group(name="web")
    port = network.create_port(
        network_id=net.id,
        name="p",
        security_group_ids=[group.id],
        allowed_address_pairs=[{"ip_address": "10.0.0.99"}],
        binding_host_id="host1",
        binding_profile={"device": "tap1"},
    )
    assert port.security_group_ids == [group.id]
    assert port.fixed_ips[0]["subnet_id"] == subnet.id
    assert port.binding_profile == {"device": "tap1"}
    made = network.create_ports([{"network_id": net.id}, {"network_id": net.id}])
    assert len(list(made)) == 2
    assert len(list(network.ports(network_id=net.id))) == 3
    address = port.fixed_ips[0]["ip_address"]
    found = list(network.ports(fixed_ips=f"ip_address={address}"))
    assert [one.id for one in found] == [port.id]
    refused(exceptions.ConflictException, network.delete_security_group, group)
    refused(exceptions.ConflictException, network.delete_network, net)
    port = network.update_port(port, security_groups=[], name="q")
    assert port.name == "q" and port.security_group_ids == []
    for port in network.ports(network_id=net.id):
        network.delete_port(port, ignore_missing=False)
    network.delete_subnet(subnet, ignore_missing=False)
    network.delete_network(net, ignore_missing=False)
    network.delete_security_group(group, ignore_missing=False)


def bindings(network):
    net = network.create_network(name="lan")
    port = network.create_port(network_id=net.id, binding_host_id="host1")

    def hosts(**query):
        return [(one.host, one.status) for one in network.port_bindings(port, **query)]

    assert hosts() == [("host1", "ACTIVE")]
    made = network.create_port_binding(port, host="host2", profile={"device": "tap2"})
    assert (made.host, made.status, made.profile) == ("host2", "INACTIVE", {"device": "tap2"})
    refused(exceptions.ConflictException, network.create_port_binding, port, host="host3")
    network.delete_port_binding(port, "host2", ignore_missing=False)
    assert hosts() == [("host1", "ACTIVE")]
    network.create_port_binding(port, host="host2", profile={"device": "tap2"})
    assert hosts(host="host2") == [("host2", "INACTIVE")]
    assert network.get_port(port.id).binding_host_id == "host1"
    network.activate_port_binding(port, "host2")
    assert hosts() == [("host2", "ACTIVE")]
    moved = network.get_port(port.id)
    assert (moved.binding_host_id, moved.binding_profile) == ("host2", {"device": "tap2"})
    refused(exceptions.ConflictException, network.activate_port_binding, port, "host2")
    # As Nova does with the old host's, which is gone.
    network.delete_port_binding(port, "host1")
    network.delete_port(port, ignore_missing=False)
    network.delete_network(net, ignore_missing=False)


def address_groups(network):
    made = network.create_address_group(name="office", addresses=["192.0.2.0/24"])
    added = network.add_addresses_to_address_group(made, ["198.51.100.1/32"])
    assert sorted(added.addresses) == ["192.0.2.0/24", "198.51.100.1/32"]
    removed = network.remove_addresses_from_address_group(made, ["192.0.2.0/24"])
    assert removed.addresses == ["198.51.100.1/32"]
    assert network.find_address_group("office").id == made.id
    network.delete_address_group(made, ignore_missing=False)


def quotas(network):
    assert network.get_quota_default("default").ports == 500
    changed = network.update_quota("default", ports=7)
    assert changed.ports == 7
    assert network.get_quota("default").ports == 7
    details = network.get_quota("default", details=True)
    assert details.ports["limit"] == 7
    network.delete_quota("default", ignore_missing=False)
    assert network.get_quota("default").ports == 500


def sharing(network):
    group = network.create_security_group(name="shared")
    policy = network.create_rbac_policy(
        object_type="security_group",
        object_id=group.id,
        action="access_as_shared",
        target_project_id="*",
    )
    assert network.get_security_group(group.id).is_shared
    assert [one.id for one in network.rbac_policies(object_id=group.id)] == [policy.id]
    network.delete_rbac_policy(policy, ignore_missing=False)
    network.delete_security_group(group, ignore_missing=False)


def tags(network):
    group = network.create_security_group(name="tagged")
    network.set_tags(group, ["red", "blue"])
    assert sorted(network.get_security_group(group.id).tags) == ["blue", "red"]
    assert [one.id for one in network.security_groups(tags="red,blue")] == [group.id]
    assert [one.id for one in network.security_groups(any_tags="red,green")] == [group.id]
    network.set_tags(group, [])
    network.delete_security_group(group, ignore_missing=False)


def pages(network):
    made = [network.create_security_group(name=f"page-{at}") for at in range(5)]
    found = list(network.security_groups(limit=2))
    assert len(found) == 6, len(found)
    assert {group.id for group in made} < {group.id for group in found}
    for group in made:
        network.delete_security_group(group, ignore_missing=False)


def cloud(connection):
    assert connection.network.find_extension("security-group")
    assert connection.network.find_extension("binding-extended")
    assert connection.network.find_extension("router") is None
    made = connection.create_security_group("cloud", "by the cloud layer")
    assert connection.get_security_group("cloud")["id"] == made["id"]
    rule = connection.create_security_group_rule(
        "cloud", 22, 22, "tcp", "192.0.2.0/24", direction="ingress"
    )
    assert connection.delete_security_group_rule(rule["id"])
    assert connection.delete_security_group("cloud")
    assert list(connection.network.agents()) == []


def main():
    connection = openstack.connect(
        load_yaml_config=False,
        load_envvars=False,
        auth_type="none",
        endpoint=sys.argv[1],
    )
    network = connection.network
    for part in (groups, rules, ports, bindings, address_groups, quotas, sharing, tags, pages):
        print(part.__name__, flush=True)
        part(network)
    cloud(connection)
    print("done")


main()
