/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* The maps. Sizes are defaults; the loader sets what the host needs. Shapes: layout.rs. */
#pragma once

#define MAP(NAME, TYPE, KEY, VALUE, ENTRIES, FLAGS)		\
	struct {						\
		__uint(type, BPF_MAP_TYPE_##TYPE);		\
		__type(key, KEY);				\
		__type(value, VALUE);				\
		__uint(max_entries, ENTRIES);			\
		__uint(map_flags, FLAGS);			\
	} NAME SEC(".maps")

#define PORTS 1024
#define LAZY BPF_F_NO_PREALLOC

/* What the agent writes. */
MAP(config, ARRAY, __u32, struct config, 1, 0);
MAP(devices, ARRAY, __u32, struct device, 65536, 0);
MAP(devices_more, HASH, __u32, __u32, 1024, LAZY);
MAP(port_index, ARRAY, __u32, __u32, PORTS, 0);
MAP(ports, ARRAY, __u32, struct port, PORTS * PORT_RECORDS, 0);
MAP(own, LPM_TRIE, struct own_key, __u8, 65536, LAZY);
MAP(macs, HASH, struct mac_key, __u32, 16384, LAZY);
MAP(reserved, HASH, struct reserved_key, __u8, 65536, LAZY);
MAP(net_addresses, HASH, struct net_address_key, __u8, 16384, LAZY);
MAP(subnets, LPM_TRIE, struct subnet_key, __u8, 16384, LAZY);
MAP(sets, ARRAY, __u32, struct set, 4096, 0);
MAP(exact, HASH, struct exact_key, struct peers, 1048576, LAZY);
MAP(prefixes, LPM_TRIE, struct prefix_key, struct peers, 1048576, LAZY);
MAP(policy, HASH, struct policy_key, struct policy_entry, 1048576, LAZY);
MAP(ranges, ARRAY, __u32, struct range, 1048576, 0);
/* Read by user space alone: the numbers' names, so that a new agent finds them again. */
struct name { __u8 text[128]; };
MAP(names, HASH, __u64, struct name, 1048576, LAZY);

/* What the hooks write. */
MAP(rule_stats, PERCPU_ARRAY, __u32, struct stat, 262144, 0);
MAP(port_stats, PERCPU_ARRAY, __u32, struct stat, PORTS * STATS_PER_PORT, 0);
MAP(port_state, ARRAY, __u32, struct port_state, PORTS, 0);
MAP(half_open, ARRAY, __u32, __u64, PORTS * HALF_OPEN_PLACES, 0);
MAP(host_state, ARRAY, __u32, struct host_state, 1, 0);
MAP(flows, HASH, __u64, struct flow, 1048576, LAZY);
MAP(fragments, HASH, struct fragment_key, struct fragment_entry, PORTS * FRAGMENT_PLACES, LAZY);
MAP(paths, PERCPU_ARRAY, __u32, struct path, PATHS, 0);
MAP(fragment_places, ARRAY, __u32, struct fragment_key, PORTS * FRAGMENT_PLACES, 0);

struct event_gate { __u32 tick; __u32 count; };
MAP(event_gates, PERCPU_ARRAY, __u32, struct event_gate, 1, 0);

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 262144);
} events SEC(".maps");
