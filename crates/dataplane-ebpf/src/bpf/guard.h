/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* Stage guard: no port speaks for another, and what a network needs to work passes.
 * docs/semantics.md, Guard; its order of checks is this file's.
 *
 * A guard answers 0 (go on), a drop reason, or PASS_INFRASTRUCTURE.
 */
#pragma once

static __always_inline bool same16(const __u8 *a, const __u8 *b)
{
	const __u64 *x = (const void *)a, *y = (const void *)b;

	return x[0] == y[0] && x[1] == y[1];
}

static __always_inline bool same4(const __u8 *a, const __u8 *b)
{
	return *(const __u32 *)a == *(const __u32 *)b;
}

static __always_inline bool same_mac(const __u8 *a, const __u8 *b)
{
	const __u16 *x = (const void *)a, *y = (const void *)b;

	return x[0] == y[0] && x[1] == y[1] && x[2] == y[2];
}

static __always_inline bool is_zero16(const __u8 *a)
{
	const __u64 *x = (const void *)a;

	return !x[0] && !x[1];
}

static __always_inline bool is_link_local(const __u8 *a)
{
	return a[0] == 0xfe && (a[1] & 0xc0) == 0x80;
}

static __always_inline bool is_multicast(const __u8 *a, __u8 family)
{
	return family == FAM_V4 ? (a[0] & 0xf0) == 0xe0 : a[0] == 0xff;
}

static __noinline bool net_address(__u32 network, __u16 kind, __u16 family, const __u8 *address)
{
	struct net_address_key key = { .network = network, .kind = kind, .family = family };

	__builtin_memcpy(key.address, address, 16);
	return bpf_map_lookup_elem(&net_addresses, &key) != NULL;
}

/* 255.255.255.255, or a subnet's broadcast address. IPv4. */
static __always_inline bool is_broadcast(struct port *port, const __u8 *a)
{
	__u32 address = *(const __u32 *)a;

	return address == 0xffffffff || (*(__u32 *)port->broadcast && same4(port->broadcast, a)) ||
	       (port->flags & PORT_MORE_BROADCASTS && net_address(port->network, NET_BROADCAST, FAM_V4, a));
}

static __noinline bool owns_more(__u32 addresses, __u16 mac, __u16 family, const __u8 *address)
{
	struct own_key key = {
		.prefix_len = 64 + (family == FAM_V4 ? 32 : 128),
		.addresses = addresses, .mac = mac, .family = family,
	};

	__builtin_memcpy(key.address, address, 16);
	return bpf_map_lookup_elem(&own, &key) != NULL;
}

/* Is the address fixed, or in a pair, and usable with this MAC (MAC_DESTINATION: with any)? */
static __always_inline bool owns(struct port *port, __u16 mac, __u8 family, const __u8 *address)
{
	if (family == FAM_V4 ? *(__u32 *)port->v4 && same4(port->v4, address)
			     : !is_zero16(port->v6) && same16(port->v6, address))
		return true;
	return port->flags & PORT_MORE_ADDRESSES && owns_more(port->addresses, mac, family, address);
}

static __noinline bool link_local_reserved(__u32 network, const __u8 *address)
{
	struct reserved_key key = { .network = network };

	__builtin_memcpy(key.address, address, 16);
	return bpf_map_lookup_elem(&reserved, &key) != NULL;
}

static __always_inline bool allowed_link_local(struct port *port, const __u8 *address)
{
	if (!is_link_local(address))
		return false;
	if (same16(port->link_local, address))
		return true;
	return !(port->flags & PORT_EUI64_ONLY) && !link_local_reserved(port->network, address);
}

/* Owned, or an allowed link-local address. */
static __always_inline bool is_ports(struct port *port, __u16 mac, __u8 family, const __u8 *address)
{
	return owns(port, mac, family, address) ||
	       (family == FAM_V6 && allowed_link_local(port, address));
}

/* A link-local address of the port: a listed one with this MAC, or an allowed one. */
static __always_inline bool is_ports_link_local(struct port *port, __u16 mac, const __u8 *address)
{
	return is_link_local(address) && is_ports(port, mac, FAM_V6, address);
}

/* The number of the MAC in `own`, or 0 if it is not the port's. */
static __always_inline __u16 mac_number(struct port *port, const __u8 *mac)
{
	struct mac_key key = { .addresses = port->addresses };
	__u32 *number;

	if (same_mac(port->mac, mac))
		return MAC_OWN;
	if (!(port->flags & PORT_MORE_MACS))
		return 0;
	__builtin_memcpy(key.mac, mac, 6);
	number = bpf_map_lookup_elem(&macs, &key);
	return number ? *number : 0;
}

struct arp {
	__u16 hardware_be;
	__u16 protocol_be;
	__u8 hardware_length;
	__u8 protocol_length;
	__u16 opcode_be;
	__u8 sender_mac[6];
	__u8 sender_ip[4];
	__u8 target_mac[6];
	__u8 target_ip[4];
};

/* ARP and RARP. */
PROVEN_ONCE int guard_arp(struct __sk_buff *skb, struct port *port, struct packet *p, __u32 direction)
{
	__u8 target[16] __attribute__((aligned(8))) = {}, sender[16] __attribute__((aligned(8))) = {};
	struct arp arp;
	__u16 mac;

	if (!port || !p)
		return BAD_HEADER;
	mac = mac_number(port, p->source_mac);
	if (direction == DIR_EGRESS && !mac)
		return SPOOFED_MAC;
	if (bpf_skb_load_bytes(skb, ETHERNET, &arp, sizeof(arp)))
		return BAD_HEADER;
	if (direction == DIR_INGRESS)
		return PASS_INFRASTRUCTURE;
	__builtin_memcpy(sender, arp.sender_ip, 4);
	__builtin_memcpy(target, arp.target_ip, 4);
	if (arp.hardware_be != bpf_htons(1) || arp.protocol_be != bpf_htons(TYPE_IPV4) ||
	    arp.hardware_length != 6 || arp.protocol_length != 4)
		return SPOOFED_ARP;
	if (p->ethertype == TYPE_RARP)
		return arp.opcode_be == bpf_htons(3) && mac_number(port, arp.sender_mac) &&
		       mac_number(port, arp.target_mac) && !*(__u32 *)sender && !*(__u32 *)target
			       ? PASS_INFRASTRUCTURE : SPOOFED_ARP;
	if (arp.opcode_be != bpf_htons(1) && arp.opcode_be != bpf_htons(2))
		return SPOOFED_ARP;
	if (!same_mac(arp.sender_mac, p->source_mac))
		return SPOOFED_ARP;
	return owns(port, mac, FAM_V4, *(__u32 *)sender ? sender : target) ? PASS_INFRASTRUCTURE : SPOOFED_ARP;
}

/* Bytes of the fixed part of ND messages 133 to 137. */
static __always_inline __u32 nd_length(__u8 type)
{
	return type == 133 ? 8 : type == 134 ? 16 : type == 137 ? 40 : 24;
}

/* No option is broken, and each link-layer option is the frame's source MAC. */
static __noinline bool nd_options_fit(struct __sk_buff *skb, struct packet *p, __u32 at)
{
	for (int i = 0; i < 64; i++) {
		__u8 option[8];

		if (at == p->end)
			return true;
		if (at + 8 > p->end || bpf_skb_load_bytes(skb, at, option, 8) || !option[1])
			return false;
		if (at + option[1] * 8 > p->end)
			return false;
		if (option[0] == 1 || option[0] == 2) {
			if (option[1] != 1)
				return false;
			for (int j = 0; j < 6; j++)
				if (option[2 + j] != p->source_mac[j])
					return false;
		}
		at += option[1] * 8;
	}
	return at == p->end;
}

/* Neighbour discovery from a port, types 133 to 137. */
PROVEN_ONCE int guard_nd(struct __sk_buff *skb, struct port *port, struct packet *p, __u16 mac)
{
	__u8 target[16] __attribute__((aligned(8)));
	bool target_is_ports = false;
	__u32 length;
	__u8 type;

	if (!port || !p)
		return SPOOFED_ND;
	type = icmp_type(p);
	length = nd_length(type);
	if ((type == 134 || type == 137) && !(port->flags & PORT_ROUTER))
		return ROGUE_RA;
	if (p->fragment != WHOLE || p->hops != 255 || p->destination_l4 & 0xff || p->l4_at + length > p->end)
		return SPOOFED_ND;
	if (!nd_options_fit(skb, p, p->l4_at + length))
		return SPOOFED_ND;
	if (type == 135 || type == 136) {
		if (bpf_skb_load_bytes(skb, p->l4_at + 8, target, 16))
			return SPOOFED_ND;
		target_is_ports = is_ports(port, mac, FAM_V6, target);
	}
	if (type == 136 && !target_is_ports)
		return SPOOFED_ND;
	if (is_ports(port, mac, FAM_V6, p->source) ||
	    (type == 135 && is_zero16(p->source) && target_is_ports))
		return PASS_INFRASTRUCTURE;
	return SPOOFED_ND;
}

/* Multicast listener discovery from a port, types 130 to 132 and 143. */
PROVEN_ONCE int guard_mld(struct __sk_buff *skb, struct port *port, struct packet *p, __u16 mac)
{
	__u8 group[16] __attribute__((aligned(8)));
	bool addressed;
	__u8 type;

	if (!port || !p)
		return ROGUE_QUERY;
	type = icmp_type(p);
	if (type == 130)
		return ROGUE_QUERY;
	addressed = p->destination[0] == 0xff && p->destination[1] == 0x02;
	if (!addressed && type != 143 && is_multicast(p->destination, FAM_V6) && p->l4_at + 24 <= p->end &&
	    !bpf_skb_load_bytes(skb, p->l4_at + 8, group, 16))
		addressed = same16(group, p->destination);
	if (addressed && p->fragment == WHOLE && p->hops == 1 &&
	    (is_zero16(p->source) || is_ports_link_local(port, mac, p->source)))
		return PASS_INFRASTRUCTURE;
	return 0;
}

PROVEN_ONCE int guard_igmp(struct __sk_buff *skb, struct port *port, struct packet *p, __u16 mac)
{
	__u8 type;

	if (!port || !p)
		return ROGUE_QUERY;
	if (p->l4_at >= p->end || bpf_skb_load_bytes(skb, p->l4_at, &type, 1))
		return 0;
	if (type == 0x11)
		return ROGUE_QUERY;
	if (type != 0x12 && type != 0x16 && type != 0x17 && type != 0x22)
		return 0;
	if (p->fragment == WHOLE && p->hops == 1 && is_multicast(p->destination, FAM_V4) &&
	    (!*(__u32 *)p->source || owns(port, mac, FAM_V4, p->source)))
		return PASS_INFRASTRUCTURE;
	return 0;
}

/* Is it a DHCP server or relay of the network: a listed one, or, if none is, any of its prefixes? */
static __noinline bool is_dhcp_server(struct port *port, __u8 family, const __u8 *address)
{
	struct subnet_key key = {
		.prefix_len = 64 + (family == FAM_V4 ? 32 : 128),
		.network = port->network, .family = family,
	};

	if (port->flags & (family == FAM_V4 ? PORT_DHCP4_LISTED : PORT_DHCP6_LISTED))
		return net_address(port->network, NET_DHCP_SERVER, family, address);
	__builtin_memcpy(key.address, address, 16);
	return bpf_map_lookup_elem(&subnets, &key) != NULL;
}

static __always_inline bool is_udp(struct packet *p, __u16 source, __u16 destination)
{
	return p->protocol == UDP && p->l4 == PORTED && p->source_l4 == source && p->destination_l4 == destination;
}

static __always_inline bool is_dhcp_request(struct packet *p)
{
	return p->family == FAM_V4 ? is_udp(p, 68, 67) : is_udp(p, 546, 547);
}

static __always_inline bool is_dhcp_answer(struct packet *p)
{
	return p->family == FAM_V4 ? is_udp(p, 67, 68) : is_udp(p, 547, 546);
}

static __always_inline bool to_dhcp_multicast(const __u8 *a)
{
	const __u64 *x = (const void *)a;

	return (x[0] == bpf_cpu_to_be64(0xff02000000000000) && x[1] == bpf_cpu_to_be64(0x10002)) ||
	       (x[0] == bpf_cpu_to_be64(0xff05000000000000) && x[1] == bpf_cpu_to_be64(0x10003));
}

/* DHCP from a port. */
PROVEN_ONCE int guard_dhcp(struct port *port, struct packet *p, __u16 mac)
{
	if (!port || !p)
		return ROGUE_DHCP;
	if (is_dhcp_answer(p)) {
		if (!(port->flags & PORT_DHCP_SERVER))
			return ROGUE_DHCP;
		return is_ports(port, mac, p->family, p->source) ? PASS_INFRASTRUCTURE : 0;
	}
	if (p->family == FAM_V4) {
		if (*(__u32 *)p->source && !owns(port, mac, FAM_V4, p->source))
			return 0;
		if (*(__u32 *)p->destination == 0xffffffff)
			return PASS_INFRASTRUCTURE;
	} else {
		if (!is_ports_link_local(port, mac, p->source))
			return 0;
		if (to_dhcp_multicast(p->destination))
			return PASS_INFRASTRUCTURE;
	}
	return is_dhcp_server(port, p->family, p->destination) ? PASS_INFRASTRUCTURE : 0;
}

/* What a port sends, behind ARP. */
static __always_inline int guard_from_port(struct __sk_buff *skb, struct port *port, struct packet *p, __u16 mac)
{
	int answer = 0;

	if (p->fragment != LATER) {
		if (p->family == FAM_V6 && p->l4 == ICMP) {
			__u8 type = icmp_type(p);

			if (type >= 133 && type <= 137)
				answer = guard_nd(skb, port, p, mac);
			else if ((type >= 130 && type <= 132) || type == 143)
				answer = guard_mld(skb, port, p, mac);
		} else if (p->family == FAM_V4 && p->protocol == IGMP) {
			answer = guard_igmp(skb, port, p, mac);
		} else if (is_dhcp_answer(p) || is_dhcp_request(p)) {
			answer = guard_dhcp(port, p, mac);
		}
		if (answer)
			return answer;
	}
	return is_ports(port, mac, p->family, p->source) ? 0 : SPOOFED_IP;
}

/* Is it a source address that no packet may have, unless by way of configuration? */
PROVEN_ONCE bool is_martian(struct port *port, struct packet *p)
{
	__u8 type;

	if (!port || !p || is_multicast(p->source, p->family))
		return true;
	if (p->family == FAM_V4) {
		if (!*(__u32 *)p->source)
			return p->fragment == LATER || !(is_dhcp_request(p) || p->protocol == IGMP);
		return p->source[0] == 127 || is_broadcast(port, p->source);
	}
	type = icmp_type(p);
	if (is_zero16(p->source))
		return p->fragment == LATER || p->l4 != ICMP ||
		       !(type == 135 || (type >= 130 && type <= 132) || type == 143);
	return *(__u64 *)p->source == 0 && *(__u64 *)(p->source + 8) == bpf_cpu_to_be64(1);
}

PROVEN_ONCE int infrastructure_to_port(struct __sk_buff *skb, struct port *port, struct packet *p)
{
	if (!port || !p)
		return MARTIAN;
	if (p->family == FAM_V6 && p->l4 == ICMP) {
		__u8 type = icmp_type(p);

		if (type >= 133 && type <= 136)
			return p->fragment == WHOLE && p->hops == 255 && !(p->destination_l4 & 0xff) &&
			       (type != 134 || is_link_local(p->source)) ? PASS_INFRASTRUCTURE : 0;
		return type == 130 && p->fragment == WHOLE && p->hops == 1 && is_link_local(p->source)
			       ? PASS_INFRASTRUCTURE : 0;
	}
	if (p->family == FAM_V4 && p->protocol == IGMP) {
		__u8 type;

		if (p->l4_at >= p->end || bpf_skb_load_bytes(skb, p->l4_at, &type, 1))
			return 0;
		return type == 0x11 ? PASS_INFRASTRUCTURE : 0;
	}
	if (is_dhcp_request(p))
		return port->flags & PORT_DHCP_SERVER ? PASS_INFRASTRUCTURE : 0;
	if (is_dhcp_answer(p))
		return is_dhcp_server(port, p->family, p->source) ||
		       (p->family == FAM_V6 && !(port->flags & PORT_DHCP6_LISTED) && is_link_local(p->source))
			       ? PASS_INFRASTRUCTURE : 0;
	return 0;
}

/* What a port would receive, behind ARP. */
static __always_inline int guard_to_port(struct __sk_buff *skb, struct port *port, struct packet *p)
{
	if (!is_ports(port, MAC_DESTINATION, p->family, p->destination) &&
	    !is_multicast(p->destination, p->family) &&
	    !(p->family == FAM_V4 && is_broadcast(port, p->destination)))
		return FOREIGN_DESTINATION;
	if (is_martian(port, p))
		return MARTIAN;
	if (p->fragment == LATER)
		return 0;
	if (p->l4 == ICMP ? p->family == FAM_V6 : p->protocol == IGMP || is_dhcp_request(p) || is_dhcp_answer(p))
		return infrastructure_to_port(skb, port, p);
	return 0;
}
