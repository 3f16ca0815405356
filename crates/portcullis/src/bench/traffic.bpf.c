/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* What the bench sends, and where it ends.
 *
 * BPF_PROG_RUN runs one of these programs on a frame, and the frame goes on as if
 * a VM's device had received it just now (live frames, Linux 5.18). One program for each kind of
 * traffic: it makes the frame at hand that of packet `n`.
 *
 * A frame's memory is used again with what the last run wrote into it; each program writes all that
 * differs between its packets. The license: crates/dataplane-ebpf/src/bpf/LICENSE.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* A power of two; user space asks the map. */
#define SOURCES (1 << 17)

/* As many packets were made, ever: no two have the same number. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} made SEC(".maps");

/* Source addresses in the order of their use, which reads them like a stream: the caches are for what
 * is measured. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SOURCES);
	__type(key, __u32);
	__type(value, __be32);
} sources SEC(".maps");

/* Without options or a UDP checksum. */
struct frame {
	struct ethhdr ethernet;
	struct iphdr ip;
	struct udphdr udp;
} __attribute__((packed));

static __always_inline struct frame *next_frame(struct xdp_md *context, __u32 *n)
{
	struct frame *frame = (void *)(long)context->data;
	__u32 zero = 0;
	__u64 *count = bpf_map_lookup_elem(&made, &zero);

	if (!count || (void *)(frame + 1) > (void *)(long)context->data_end)
		return 0;
	/* One processor sends. */
	*n = (*count)++;
	return frame;
}

/* RFC 1624: the header's checksum goes along. */
static __always_inline void set_source(struct frame *frame, __be32 source)
{
	__u32 gone = ~frame->ip.saddr, sum = (__u16)~frame->ip.check;

	sum += (gone & 0xffff) + (gone >> 16) + (source & 0xffff) + (source >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	frame->ip.check = ~sum;
	frame->ip.saddr = source;
}

SEC("xdp")
int one_flow(struct xdp_md *context)
{
	__u32 n;

	return next_frame(context, &n) ? XDP_PASS : XDP_ABORTED;
}

/* 4,096 source ports in turn. */
SEC("xdp")
int many_flows(struct xdp_md *context)
{
	__u32 n;
	struct frame *frame = next_frame(context, &n);

	if (!frame)
		return XDP_ABORTED;
	frame->udp.source = bpf_htons(n & 0xfff);
	return XDP_PASS;
}

/* Both ports: 2^32 packets until a flow comes again. */
SEC("xdp")
int new_flows(struct xdp_md *context)
{
	__u32 n;
	struct frame *frame = next_frame(context, &n);

	if (!frame)
		return XDP_ABORTED;
	frame->udp.source = bpf_htons(n >> 16);
	frame->udp.dest = bpf_htons(n & 0xffff);
	return XDP_PASS;
}

SEC("xdp")
int many_sources(struct xdp_md *context)
{
	__u32 n, i;
	struct frame *frame = next_frame(context, &n);
	__be32 *source;

	if (!frame)
		return XDP_ABORTED;
	i = n & (SOURCES - 1);
	source = bpf_map_lookup_elem(&sources, &i);
	if (!source)
		return XDP_ABORTED;
	set_source(frame, *source);
	return XDP_PASS;
}

/* The receiving VM's door, behind the device that counts: UDP ends here, before a stack of no interest
 * spends more on it than the host did. */
SEC("tc")
int sink(struct __sk_buff *context)
{
	struct frame *frame = (void *)(long)context->data;

	if ((void *)(frame + 1) > (void *)(long)context->data_end)
		return TC_ACT_OK;
	if (frame->ethernet.h_proto != bpf_htons(ETH_P_IP) || frame->ip.protocol != IPPROTO_UDP)
		return TC_ACT_OK;
	return TC_ACT_SHOT;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
