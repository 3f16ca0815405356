/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* Stage parse: from bytes to `struct packet`. docs/semantics.md, To the letter, Parse.
 *
 * Plain TCP, UDP and ICMP go by direct access; all else (options, extension headers, fragments,
 * headers outside the linear part, quoted packets) by `parse_ip`, with the same result.
 */
#pragma once

/* Of a function that isn't static the verifier proves the body once, whatever the number of callers. */
#define PROVEN_ONCE __noinline

#define VLAN_8021Q 0x8100
#define VLAN_8021AD 0x88a8
#define VLAN_QINQ 0x9100
#define TYPE_IPV4 0x0800
#define TYPE_IPV6 0x86dd
#define TYPE_ARP 0x0806
#define TYPE_RARP 0x8035

#define ICMPV4 1
#define IGMP 2
#define TCP 6
#define UDP 17
#define DCCP 33
#define ICMPV6 58
#define SCTP 132
#define UDPLITE 136

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

#define ETHERNET 14

enum drop {
	NOT_READY = 1, VLAN_TAG, ETHERTYPE, BAD_HEADER, SPOOFED_MAC, SPOOFED_ARP, SPOOFED_ND,
	ROGUE_RA, ROGUE_QUERY, ROGUE_DHCP, SPOOFED_IP, FOREIGN_DESTINATION, MARTIAN, NO_RULE,
	FLOW_BUDGET, BAD_FRAGMENT, ORPHAN_FRAGMENT, ERROR_RATE,
};

enum fragment { WHOLE, FIRST, LATER };
enum l4 { OPAQUE, PORTED, ICMP };

struct packet {
	__u8 source[16] __attribute__((aligned(8)));
	__u8 destination[16] __attribute__((aligned(8)));
	/* Offsets in the frame: the transport header (or a later fragment's part), and the IP packet's end. */
	__u32 l4_at;
	__u32 end;
	__u32 fragment_id;
	/* First: how far it reaches in the datagram. Later: where it begins. */
	__u32 fragment_at;
	/* ICMP: the identifier, and type * 256 + code. */
	__u16 source_l4;
	__u16 destination_l4;
	__u8 protocol;
	__u8 family;
	__u8 hops;
	__u8 tcp_flags;
	__u8 fragment;
	__u8 l4;
	__u8 source_mac[6] __attribute__((aligned(2)));
	__u8 destination_mac[6] __attribute__((aligned(2)));
	__u16 ethertype;
	__u16 pad;
	/* What forbids it at every port, a drop reason; or 0. */
	__u32 broken;
};

static __always_inline __u8 icmp_type(struct packet *p)
{
	return p->destination_l4 >> 8;
}

struct ipv4_header {
	__u8 version_length;
	__u8 tos;
	__u16 total_be;
	__u16 id_be;
	__u16 fragment_be;
	__u8 ttl;
	__u8 protocol;
	__u16 checksum;
	__u32 source;
	__u32 destination;
};

struct ipv6_header {
	__u32 version_class_flow;
	__u16 payload_be;
	__u8 next;
	__u8 hops;
	__u64 source[2];
	__u64 destination[2];
};

static __always_inline __u32 transport_length(__u8 protocol, __u8 family)
{
	switch (protocol) {
	case TCP: return 20;
	case UDP: case UDPLITE: return 8;
	case SCTP: case DCCP: return 12;
	case ICMPV4: return family == FAM_V4 ? 8 : 0;
	case ICMPV6: return family == FAM_V6 ? 8 : 0;
	default: return 0;
	}
}

/* Loose and strict source routes, and options that contradict the header's length. `at` to `end`. */
static __noinline int check_ipv4_options(struct __sk_buff *skb, __u32 at, __u32 end)
{
	__u8 option[2] = {};

	for (int i = 0; i < 40; i++) {
		if (at >= end || bpf_skb_load_bytes(skb, at, option, 1) || option[0] == 0)
			return 0;
		if (option[0] == 1) {
			at++;
			continue;
		}
		if (option[0] == 131 || option[0] == 137 || at + 2 > end ||
		    bpf_skb_load_bytes(skb, at, option, 2) || option[1] < 2 || at + option[1] > end)
			return BAD_HEADER;
		at += option[1];
	}
	return 0;
}

static __always_inline int parse_ipv4(struct __sk_buff *skb, struct packet *p, __u32 at, __u32 limit)
{
	struct ipv4_header ip;
	__u32 length, total, fragment;

	if (at + sizeof(ip) > limit || bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)))
		return BAD_HEADER;
	length = (ip.version_length & 15) * 4;
	total = bpf_ntohs(ip.total_be);
	if (ip.version_length >> 4 != 4 || length < 20 || (total && total < length))
		return BAD_HEADER;
	p->end = total && at + total < limit ? at + total : limit;
	if (at + length > p->end)
		return BAD_HEADER;
	if (length > 20) {
		int bad = check_ipv4_options(skb, at + 20, at + length);

		if (bad)
			return bad;
	}
	*(__u32 *)p->source = ip.source;
	*(__u32 *)p->destination = ip.destination;
	p->hops = ip.ttl;
	p->protocol = ip.protocol;
	p->l4_at = at + length;
	fragment = bpf_ntohs(ip.fragment_be);
	p->fragment_id = bpf_ntohs(ip.id_be);
	if (fragment & 0x1fff) {
		p->fragment = LATER;
		p->fragment_at = (fragment & 0x1fff) * 8;
		if (p->fragment_at + (p->end - p->l4_at) > 65535)
			return BAD_FRAGMENT;
	} else if (fragment & 0x2000) {
		p->fragment = FIRST;
		p->fragment_at = p->end - p->l4_at;
	}
	return 0;
}

static __always_inline bool is_extension(__u8 next)
{
	return next == 0 || next == 43 || next == 44 || next == 51 || next == 60;
}

static __always_inline int parse_ipv6(struct __sk_buff *skb, struct packet *p, __u32 at, __u32 limit)
{
	struct ipv6_header ip;
	__u32 pos = at + 40, start = 0, total = 0, payload;
	bool fragment_seen = false;
	__u8 next;

	if (at + 40 > limit || bpf_skb_load_bytes(skb, at, &ip, 40))
		return BAD_HEADER;
	if ((bpf_ntohl(ip.version_class_flow) >> 28) != 6)
		return BAD_HEADER;
	payload = bpf_ntohs(ip.payload_be);
	p->end = payload && at + 40 + payload < limit ? at + 40 + payload : limit;
	__builtin_memcpy(p->source, ip.source, 16);
	__builtin_memcpy(p->destination, ip.destination, 16);
	p->hops = ip.hops;
	next = ip.next;
	for (int i = 0; i < 7; i++) {
		__u8 header[8];
		__u32 length;
		int cut = p->fragment == FIRST ? BAD_FRAGMENT : BAD_HEADER;

		if (!is_extension(next))
			break;
		if (i == 6)
			return BAD_HEADER;
		if (pos + 8 > p->end || bpf_skb_load_bytes(skb, pos, header, 8))
			return cut;
		length = next == 44 ? 8 : next == 51 ? (header[1] + 2) * 4 : (header[1] + 1) * 8;
		total += length;
		if (total > 256)
			return BAD_HEADER;
		if ((next == 0 && i != 0) || (next == 43 && header[3]))
			return BAD_HEADER;
		if (next == 44) {
			__u32 offset = header[2] << 8 | header[3];

			if (fragment_seen)
				return BAD_HEADER;
			fragment_seen = true;
			p->fragment_id = (__u32)header[4] << 24 | header[5] << 16 | header[6] << 8 | header[7];
			start = pos + 8;
			if (offset & 0xfff8) {
				p->fragment = LATER;
				p->fragment_at = offset & 0xfff8;
				p->protocol = header[0];
				p->l4_at = start;
				if (p->fragment_at + (p->end - start) > 65535)
					return BAD_FRAGMENT;
				return 0;
			}
			if (offset & 1)
				p->fragment = FIRST;
		}
		if (pos + length > p->end)
			return cut;
		next = header[0];
		pos += length;
	}
	p->protocol = next;
	p->l4_at = pos;
	if (p->fragment == FIRST) {
		p->fragment_at = p->end - start;
		if (p->fragment_at > 65535)
			return BAD_FRAGMENT;
	}
	return 0;
}

/* Of a quoted packet, 8 bytes of transport header are enough; it has no TCP flags then. */
static __always_inline int parse_transport(struct __sk_buff *skb, struct packet *p, bool quoted)
{
	__u32 length = transport_length(p->protocol, p->family);
	__u8 header[8];

	p->l4 = OPAQUE;
	if (!length)
		return 0;
	if (quoted)
		length = 8;
	if (p->l4_at + length > p->end || bpf_skb_load_bytes(skb, p->l4_at, header, 8))
		return p->fragment == FIRST ? BAD_FRAGMENT : BAD_HEADER;
	if (p->protocol == ICMPV4 || p->protocol == ICMPV6) {
		p->l4 = ICMP;
		p->source_l4 = header[4] << 8 | header[5];
		p->destination_l4 = header[0] << 8 | header[1];
		return 0;
	}
	p->l4 = PORTED;
	p->source_l4 = header[0] << 8 | header[1];
	p->destination_l4 = header[2] << 8 | header[3];
	if (p->protocol == TCP && !quoted)
		return bpf_skb_load_bytes(skb, p->l4_at + 13, &p->tcp_flags, 1) ? BAD_HEADER : 0;
	return 0;
}

/* Parses the IP packet at `at`, which ends at `limit` at the latest. 0, or the drop reason. */
PROVEN_ONCE int parse_ip(struct __sk_buff *skb, struct packet *p, __u32 at, __u32 limit, bool quoted)
{
	int bad;

	if (!p)
		return BAD_HEADER;
	p->fragment = WHOLE;
	bad = p->family == FAM_V4 ? parse_ipv4(skb, p, at, limit) : parse_ipv6(skb, p, at, limit);
	if (bad || p->fragment == LATER)
		return bad;
	return parse_transport(skb, p, quoted);
}

struct ports_be { __u16 source; __u16 destination; };

/* The transport headers that most packets have, by direct access. False: ask parse_ip. */
static __always_inline bool parse_plain_transport(struct packet *p, __u8 *l4, void *data_end, __u32 room)
{
	struct ports_be *ports = (void *)l4;

	if (p->protocol == TCP && room >= 20 && (void *)(l4 + 20) <= data_end) {
		p->tcp_flags = l4[13];
	} else if (p->protocol == UDP && room >= 8 && (void *)(l4 + 8) <= data_end) {
	} else if (p->protocol == (p->family == FAM_V4 ? ICMPV4 : ICMPV6) && room >= 8 &&
		   (void *)(l4 + 8) <= data_end) {
		p->l4 = ICMP;
		p->source_l4 = l4[4] << 8 | l4[5];
		p->destination_l4 = l4[0] << 8 | l4[1];
		return true;
	} else {
		return false;
	}
	p->l4 = PORTED;
	p->source_l4 = bpf_ntohs(ports->source);
	p->destination_l4 = bpf_ntohs(ports->destination);
	return true;
}

static __always_inline bool parse_plain_ipv4(struct __sk_buff *skb, struct packet *p)
{
	__u8 *data = (void *)(long)skb->data;
	void *data_end = (void *)(long)skb->data_end;
	struct ipv4_header *ip = (void *)(data + ETHERNET);
	__u32 total;

	if ((void *)(data + ETHERNET + 20) > data_end)
		return false;
	total = bpf_ntohs(ip->total_be);
	if (ip->version_length != 0x45 || ip->fragment_be & bpf_htons(0x3fff) || total < 20)
		return false;
	p->end = ETHERNET + total < skb->len ? ETHERNET + total : skb->len;
	p->l4_at = ETHERNET + 20;
	p->fragment = WHOLE;
	*(__u32 *)p->source = ip->source;
	*(__u32 *)p->destination = ip->destination;
	p->hops = ip->ttl;
	p->protocol = ip->protocol;
	return parse_plain_transport(p, data + ETHERNET + 20, data_end, p->end - p->l4_at);
}

static __always_inline bool parse_plain_ipv6(struct __sk_buff *skb, struct packet *p)
{
	__u8 *data = (void *)(long)skb->data;
	void *data_end = (void *)(long)skb->data_end;
	struct ipv6_header *ip = (void *)(data + ETHERNET);
	__u32 payload;

	if ((void *)(data + ETHERNET + 40) > data_end)
		return false;
	payload = bpf_ntohs(ip->payload_be);
	if (data[ETHERNET] >> 4 != 6 || !payload)
		return false;
	p->end = ETHERNET + 40 + payload < skb->len ? ETHERNET + 40 + payload : skb->len;
	p->l4_at = ETHERNET + 40;
	p->fragment = WHOLE;
	__builtin_memcpy(p->source, ip->source, 16);
	__builtin_memcpy(p->destination, ip->destination, 16);
	p->hops = ip->hops;
	p->protocol = ip->next;
	return parse_plain_transport(p, data + ETHERNET + 40, data_end, p->end - p->l4_at);
}

/* IPv4 or IPv6 behind the Ethernet header. 0, or the drop reason. */
static __always_inline int parse_network(struct __sk_buff *skb, struct packet *p)
{
	p->family = p->ethertype == TYPE_IPV4 ? FAM_V4 : FAM_V6;
	if (p->family == FAM_V4 ? parse_plain_ipv4(skb, p) : parse_plain_ipv6(skb, p))
		return 0;
	return parse_ip(skb, p, ETHERNET, skb->len, false);
}

static __always_inline bool is_ip(struct packet *p)
{
	return p->ethertype == TYPE_IPV4 || p->ethertype == TYPE_IPV6;
}

static __always_inline bool is_listed(struct config *config, __u16 ethertype)
{
	for (int i = 0; i < ETHERTYPES; i++)
		if (i < config->ethertypes_len && config->ethertypes[i] == ethertype)
			return true;
	return false;
}

/* A frame, up to its transport header. 0, or what no port lets through: tags, ethertypes, headers. */
static __always_inline int parse_frame(struct __sk_buff *skb, struct config *config, struct packet *p)
{
	__u8 *ethernet = (void *)(long)skb->data;

	if (skb->vlan_present)
		return VLAN_TAG;
	if ((void *)(ethernet + ETHERNET) > (void *)(long)skb->data_end)
		return BAD_HEADER;
	__builtin_memcpy(p->destination_mac, ethernet, 6);
	__builtin_memcpy(p->source_mac, ethernet + 6, 6);
	p->ethertype = ethernet[12] << 8 | ethernet[13];
	if (is_ip(p))
		return parse_network(skb, p);
	if (p->ethertype == VLAN_8021Q || p->ethertype == VLAN_8021AD || p->ethertype == VLAN_QINQ)
		return VLAN_TAG;
	if (p->ethertype == TYPE_ARP || p->ethertype == TYPE_RARP || is_listed(config, p->ethertype))
		return 0;
	return ETHERTYPE;
}
