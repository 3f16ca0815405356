/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* Behind the verdict, where the settings say so: from a port straight to another one of this host.
 *
 *   sender's hook: its gate, the receiver's gate --> receiver's device; its hook sees the mark
 *
 * Only as the host itself forwards: a path is what became of a frame between the same device and MAC,
 * and it ends a moment after the last frame that went the host's way. So one frame in that time still
 * does, which also keeps a bridge's forwarding table fresh, and whatever a bridge stops forwarding
 * (a port isolated, moved to another VLAN, gone) ends with it.
 */
#pragma once

/* Of 0.27 s: a path lasts for one to two. */
#define PATH_TICKS 1

/* Where the path from a device to a MAC is kept, or another one. Of each CPU its own: a frame goes from
 * hook to hook on one, and no other one sees an entry half written. */
static __always_inline struct path *path_place(__u32 from, const __u8 *mac)
{
	const __u16 *m = (const void *)mac;
	__u32 index = (from * 0x9e3779b1 + (m[2] << 16 | m[1]) * 0x85ebca6b + m[0]) >> 20;

	_Static_assert(PATHS == 1 << 12, "as many bits as are left");
	return bpf_map_lookup_elem(&paths, &index);
}

/* At the receiver: did the host pass this frame on as it came from a port? (A router changes the
 * MACs, and a flood reaches ports that are not the destination.) */
PROVEN_ONCE int note_path(struct __sk_buff *skb, struct packet *p)
{
	struct port *receiver = port_of(skb->ifindex), *sender = port_of(skb->ingress_ifindex);
	struct config *config = settings();
	struct path *path;
	__u32 mtu = 0;

	if (!p || !config || !receiver || !same_mac(receiver->mac, p->destination_mac))
		return 0;
	if (!sender || !same_mac(sender->mac, p->source_mac))
		return 0;
	path = path_place(skb->ingress_ifindex, p->destination_mac);
	if (!path)
		return 0;
	bpf_check_mtu(skb, 0, &mtu, 0, 0);
	path->from = skb->ingress_ifindex;
	__builtin_memcpy(path->mac, p->destination_mac, 6);
	path->to = skb->ifindex;
	path->longest = mtu + ETHERNET;
	path->seen_ticks = now_ticks(config);
	return 0;
}

/* At the sender: the device that the frame would reach, if it is known; or 0. */
static __always_inline __u32 path_from(struct __sk_buff *skb, struct config *config, struct packet *p)
{
	struct path *path = path_place(skb->ifindex, p->destination_mac);

	if (!path || path->from != skb->ifindex || !same_mac(path->mac, p->destination_mac) ||
	    now_ticks(config) - path->seen_ticks > PATH_TICKS)
		return 0;
	/* A bridge drops what is too long for the device, unless it is segments put together. */
	return skb->len <= path->longest || skb->gso_size ? path->to : 0;
}

/* The mark is for this device alone, and nobody who could send a frame knows it. */
static __always_inline void mark_judged(struct __sk_buff *skb, struct config *config, __u32 ifindex)
{
	skb->cb[0] = config->judged_mark;
	skb->cb[1] = config->judged_mark >> 32;
	skb->cb[2] = ifindex;
}

/* True once: the mark is gone then. */
static __always_inline bool is_judged(struct __sk_buff *skb, struct config *config)
{
	if (skb->cb[2] != skb->ifindex || ((__u64)skb->cb[1] << 32 | skb->cb[0]) != config->judged_mark)
		return false;
	skb->cb[0] = skb->cb[1] = skb->cb[2] = 0;
	return true;
}
