/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* Stages identity and policy: what do a set's rules say of (direction, family, protocol, remote
 * address, L4 value)? One probe per peer of the address, whatever the number of rules and members.
 */
#pragma once

struct address { __u8 byte[16]; };

/* Of two rule words, the lesser rank; stateful if either is. */
static __always_inline __u32 merge(__u32 a, __u32 b)
{
	__u32 rank_a = a & WORD_RANK, rank_b = b & WORD_RANK;

	if (!a || !b)
		return a | b;
	return (rank_a < rank_b ? rank_a : rank_b) | ((a | b) & WORD_STATEFUL);
}

/* What is asked of the policy map beside set and peer: protocol, direction, family, as in its key. */
static __always_inline __u32 kind_of(__u32 protocol, __u32 direction, __u32 family)
{
	return protocol | direction << 16 | family << 24;
}

/* The word of one policy entry for an L4 value. The key comes in parts, for the stack's sake, and
 * because kernels before 6.2 take no key that a global function was given a pointer to. */
PROVEN_ONCE __u32 entry_word(__u32 set, __u32 peer, __u32 kind, __u32 l4)
{
	struct policy_key key = {
		.set = set,
		.peer = peer,
		.protocol = kind & 0xffff,
		.direction = kind >> 16 & 1,
		.family = kind >> 24,
	};
	struct policy_entry *entry = bpf_map_lookup_elem(&policy, &key);
	__u32 low, high;

	if (!entry)
		return 0;
	if (entry->count == 0)
		return entry->whole;
	if (entry->count == 1)
		return l4 >= entry->base >> 16 && l4 <= (entry->base & 0xffff) ? entry->word : entry->whole;
	low = entry->base;
	high = low + entry->count;
	/* 65,536 values: at most as many ranges. */
	for (int i = 0; i < 17 && low < high; i++) {
		__u32 middle = low + (high - low) / 2;
		struct range *range = bpf_map_lookup_elem(&ranges, &middle);

		if (!range)
			break;
		if (l4 < range->first)
			high = middle;
		else if (l4 > range->last)
			low = middle + 1;
		else
			return range->word;
	}
	return entry->whole;
}

/* What is asked of a set, beside the remote address. */
struct question {
	__u32 set;
	__u32 scope;
	__u16 l4;
	__u8 protocol;
	__u8 direction;
	__u8 family;
	__u8 pad[3];
};

static __always_inline __u32 peers_word(struct peers *peers, __u32 direction, __u32 family,
					struct question *q, bool any_protocol)
{
	__u32 word = 0;

#pragma unroll
	for (int i = 0; i < 4; i++) {
		if (!peers->peer[i])
			break;
		word = merge(word, entry_word(q->set, peers->peer[i],
					      kind_of(q->protocol, direction, family), q->l4));
		if (any_protocol)
			word = merge(word, entry_word(q->set, peers->peer[i],
						      kind_of(PROTOCOL_ANY, direction, family), 0));
	}
	return word;
}

static __always_inline struct peers *exact_peers(struct question *q, const struct address *remote)
{
	struct exact_key key = { .scope_family = q->scope * 2 + q->family };

	__builtin_memcpy(key.address, remote->byte, 16);
	return bpf_map_lookup_elem(&exact, &key);
}

static __always_inline struct peers *prefix_peers(struct question *q, const struct address *remote)
{
	struct prefix_key key = {
		.prefix_len = 32 + (q->family == FAM_V4 ? 32 : 128),
		.scope_family = q->scope * 2 + q->family,
	};

	__builtin_memcpy(key.address, remote->byte, 16);
	return bpf_map_lookup_elem(&prefixes, &key);
}

/* Can't a word found so far change by rules whose least rank is this? */
static __always_inline bool settled(__u32 word, __u32 least)
{
	return (word & WORD_STATEFUL) && (word & WORD_RANK) < least;
}

/* The least rule that permits, or 0. */
PROVEN_ONCE __u32 permits(struct set *set, struct question *q, const struct address *remote)
{
	__u32 direction, family, flags, word;
	struct peers *peers;

	if (!set || !q || !remote)
		return 0;
	direction = q->direction & 1;
	family = q->family & 1;
	flags = set->flags[direction][family];
	word = set->all[direction][family];
	if (word && flags & SET_ALL_IS_LEAST)
		return word;
	if (flags & SET_ANY)
		word = merge(word, entry_word(q->set, PEER_ANY,
					      kind_of(q->protocol, direction, family), q->l4));
	if (flags & SET_EXACT && !settled(word, set->least_exact[direction][family])) {
		peers = exact_peers(q, remote);
		if (peers)
			word = merge(word, peers_word(peers, direction, family, q, flags & SET_EXACT_ANY_PROTOCOL));
	}
	if (flags & SET_PREFIX && !settled(word, set->least_prefix[direction][family])) {
		peers = prefix_peers(q, remote);
		if (peers)
			word = merge(word, peers_word(peers, direction, family, q, flags & SET_PREFIX_ANY_PROTOCOL));
	}
	return word;
}

static __always_inline __u32 peers_errors(struct peers *peers, struct policy_key *key, __u8 icmp)
{
	__u32 errors = 0;

#pragma unroll
	for (int i = 0; i < 4; i++) {
		struct policy_entry *entry;

		if (!peers->peer[i])
			break;
		key->peer = peers->peer[i];
		key->protocol = icmp;
		entry = bpf_map_lookup_elem(&policy, key);
		errors |= entry ? entry->errors : 0;
		key->protocol = PROTOCOL_ANY;
		entry = bpf_map_lookup_elem(&policy, key);
		errors |= entry ? entry->errors : 0;
	}
	return errors;
}

/* Mode strict: do the rules permit every error type, from anybody and to this address? */
PROVEN_ONCE bool errors_permitted(struct set *set, struct question *q, const struct address *remote)
{
	struct policy_key key = { .direction = DIR_EGRESS };
	__u32 family, errors, wanted;
	struct peers *peers;

	if (!set || !q || !remote)
		return false;
	family = key.family = q->family & 1;
	key.set = q->set;
	wanted = family == FAM_V4 ? ERRORS_V4 : ERRORS_V6;
	if (set->errors_in[family] != wanted)
		return false;
	errors = set->errors_out[family];
	if (errors != wanted && (peers = exact_peers(q, remote)))
		errors |= peers_errors(peers, &key, family == FAM_V4 ? ICMPV4 : ICMPV6);
	if (errors != wanted && (peers = prefix_peers(q, remote)))
		errors |= peers_errors(peers, &key, family == FAM_V4 ? ICMPV4 : ICMPV6);
	return errors == wanted;
}
