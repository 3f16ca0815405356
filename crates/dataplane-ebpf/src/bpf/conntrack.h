/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* Stage conntrack: flows of a port, one entry for both directions, and datagrams in fragments.
 *
 *   start --> half-open (holds one of the port's places) --> established (counts in its budget)
 *                |  its place comes next, all taken: gone         |
 *                +--> expired, reset, restarted: gone or anew <---+
 *
 * Nothing is touched when a policy changes: an entry remembers under which generation its first
 * packet was judged, and is judged anew when that is no longer the one in force.
 */
#pragma once

/* Everything about one judgement. */
struct gate {
	struct config *config;
	struct port *port;
	struct set *set;
	__u32 slot;
	__u32 now;
	__u32 generation;
	/* Of the answer: the rule word behind it; NOTE_*. */
	__u32 word;
	__u32 notes;
	__u8 direction;
	bool dry;
	/* Called by BPF_PROG_RUN: a hook may interrupt it, on the same CPU. */
	bool run;
};

/* Names a flow of a port. Kind: FLOW_V6, FLOW_ASKED_BY_LOCAL. */
struct tuple {
	__u8 local[16] __attribute__((aligned(8)));
	__u8 remote[16] __attribute__((aligned(8)));
	__u16 local_l4;
	__u16 remote_l4;
	__u8 protocol;
	__u8 kind;
	__u16 pad;
};

/* Room for the packet that an ICMP error quotes: the stack has none. One for hooks, one for runs. */
struct quote {
	struct packet packet;
	struct tuple tuple;
};
MAP(quotes, PERCPU_ARRAY, __u32, struct quote, 2, 0);

static __always_inline __u32 now_ticks(struct config *config)
{
	__u64 ns = config->fixed_clock_ns;

	if (!ns)
		ns = bpf_jiffies64() * config->jiffy_ns + config->clock_offset_ns;
	return ns >> TICK_SHIFT;
}

static __always_inline __u32 clock_second(struct config *config)
{
	__u64 ns = config->fixed_clock_ns ?: bpf_ktime_get_coarse_ns();

	return ns / 1000000000;
}

/* --- names of flows --- */

static __always_inline __u64 rotate(__u64 x, int bits)
{
	return x << bits | x >> (64 - bits);
}

struct sip { __u64 a, b, c, d; };

static __always_inline void sip_round(struct sip *s)
{
	s->a += s->b; s->b = rotate(s->b, 13); s->b ^= s->a; s->a = rotate(s->a, 32);
	s->c += s->d; s->d = rotate(s->d, 16); s->d ^= s->c;
	s->a += s->d; s->d = rotate(s->d, 21); s->d ^= s->a;
	s->c += s->b; s->b = rotate(s->b, 17); s->b ^= s->c; s->c = rotate(s->c, 32);
}

static __always_inline void sip_word(struct sip *s, __u64 word)
{
	s->d ^= word;
	sip_round(s);
	s->a ^= word;
}

/* SipHash-1-3 of the tuple, keyed by the host's secret and the port's number. */
static __always_inline __u64 flow_hash(struct config *config, __u32 number, struct tuple *t)
{
	const __u64 *local = (void *)t->local, *remote = (void *)t->remote;
	struct sip s = {
		config->hash_key[0] ^ 0x736f6d6570736575, config->hash_key[1] ^ 0x646f72616e646f6d,
		config->hash_key[0] ^ 0x6c7967656e657261, config->hash_key[1] ^ 0x7465646279746573,
	};

	sip_word(&s, (__u64)number << 32 | (__u32)t->local_l4 << 16 | t->remote_l4);
	if (t->kind & FLOW_V6) {
		sip_word(&s, local[0]);
		sip_word(&s, local[1]);
		sip_word(&s, remote[0]);
		sip_word(&s, remote[1]);
		sip_word(&s, (__u64)t->protocol << 8 | t->kind);
	} else {
		sip_word(&s, (__u64)*(__u32 *)t->local << 32 | *(__u32 *)t->remote);
		sip_word(&s, (__u64)t->protocol << 8 | t->kind | 1ull << 32);
	}
	s.c ^= 0xff;
	sip_round(&s);
	sip_round(&s);
	sip_round(&s);
	return s.a ^ s.b ^ s.c ^ s.d;
}

static __always_inline bool is_request(__u16 icmp, __u8 family)
{
	return family == FAM_V4 ? icmp == 8 << 8 || icmp == 13 << 8 : icmp == 128 << 8;
}

static __always_inline bool is_reply(__u16 icmp, __u8 family)
{
	return family == FAM_V4 ? icmp == 0 || icmp == 14 << 8 : icmp == 129 << 8;
}

/* Type * 256 of the request that this reply answers. */
static __always_inline __u16 request_of(__u16 icmp)
{
	return icmp == 0 ? 8 << 8 : icmp - (1 << 8);
}

static __always_inline __u16 reply_to(__u16 icmp)
{
	return icmp == 8 << 8 ? 0 : icmp + (1 << 8);
}

/* The flow that a packet going this way belongs to. False: packets like it belong to none. */
static __always_inline bool tuple_of(struct tuple *t, struct packet *p, __u32 direction)
{
	bool egress = direction == DIR_EGRESS;

	__builtin_memcpy(t->local, egress ? p->source : p->destination, 16);
	__builtin_memcpy(t->remote, egress ? p->destination : p->source, 16);
	t->protocol = p->protocol;
	t->kind = p->family == FAM_V6 ? FLOW_V6 : 0;
	t->local_l4 = t->remote_l4 = t->pad = 0;
	if (p->l4 == PORTED) {
		t->local_l4 = egress ? p->source_l4 : p->destination_l4;
		t->remote_l4 = egress ? p->destination_l4 : p->source_l4;
	} else if (p->l4 == ICMP) {
		bool request = is_request(p->destination_l4, p->family);

		if (!request && !is_reply(p->destination_l4, p->family))
			return false;
		t->local_l4 = p->source_l4;
		t->remote_l4 = request ? p->destination_l4 : request_of(p->destination_l4);
		if (request == egress)
			t->kind |= FLOW_ASKED_BY_LOCAL;
	}
	return true;
}

static __always_inline bool is_icmp(struct tuple *t)
{
	return t->protocol == (t->kind & FLOW_V6 ? ICMPV6 : ICMPV4);
}

/* --- static, of the flow's packets in a direction --- */

static __always_inline void question_of(struct question *q, struct gate *g, __u8 protocol, __u8 family,
					__u8 direction, __u16 l4)
{
	q->set = g->port->set;
	q->scope = g->port->scope;
	q->l4 = l4;
	q->protocol = protocol;
	q->direction = direction;
	q->family = family;
	q->pad[0] = q->pad[1] = q->pad[2] = 0;
}

static __noinline __u32 flow_permits(struct gate *g, struct tuple *t, __u8 direction)
{
	struct question q;
	__u16 l4 = direction == DIR_EGRESS ? t->remote_l4 : t->local_l4;

	if (is_icmp(t)) {
		bool asks = direction == (t->kind & FLOW_ASKED_BY_LOCAL ? DIR_EGRESS : DIR_INGRESS);

		l4 = asks ? t->remote_l4 : reply_to(t->remote_l4);
	}
	question_of(&q, g, t->protocol, t->kind & FLOW_V6 ? FAM_V6 : FAM_V4, direction, l4);
	return permits(g->set, &q, (void *)t->remote);
}

/* Could the flow be elidable? Cheap, and never wrongly no. */
static __always_inline bool may_elide(struct gate *g, struct tuple *t)
{
	__u32 family = t->kind & FLOW_V6 ? FAM_V6 : FAM_V4;

	if (g->config->elision == ELISION_OFF || !(g->set->flags[DIR_INGRESS][family] & SET_MAY_ELIDE))
		return false;
	if (t->protocol != TCP && t->protocol != UDP)
		return true;
	return g->set->ingress_ports[family][t->protocol == UDP] >> (t->local_l4 >> 10) & 1;
}

static __noinline bool mode_elides(struct gate *g, struct tuple *t)
{
	struct question q;

	if (g->config->elision == ELISION_ON)
		return true;
	question_of(&q, g, 0, t->kind & FLOW_V6 ? FAM_V6 : FAM_V4, DIR_EGRESS, 0);
	return errors_permitted(g->set, &q, (void *)t->remote);
}

/* --- the table --- */

static __always_inline bool is_flow(struct flow *f, __u32 number, struct tuple *t)
{
	return f->number == number && f->protocol == t->protocol &&
	       (f->kind & ~FLOW_EGRESS) == t->kind && f->local_l4 == t->local_l4 &&
	       f->remote_l4 == t->remote_l4 && same16(f->local, t->local) && same16(f->remote, t->remote);
}

static __always_inline bool is_expired(struct config *config, struct flow *f, __u32 now)
{
	__u32 timeout = TIMEOUT_OTHER;

	if (f->protocol == TCP)
		timeout = f->state & 3;
	else if (f->protocol == UDP)
		timeout = f->state == TCP_OPENING ? TIMEOUT_UDP : TIMEOUT_UDP_REPLIED;
	else if (f->protocol == (f->kind & FLOW_V6 ? ICMPV6 : ICMPV4))
		timeout = TIMEOUT_ICMP;
	return (__s32)(now - f->seen_ticks) > (__s32)config->timeouts_ticks[timeout & 7];
}

/* Removes a flow and what it counts in. */
PROVEN_ONCE bool forget(struct flow *f, __u64 hash)
{
	__u32 slot, number, place, index, zero = 0;
	struct host_state *host = bpf_map_lookup_elem(&host_state, &zero);
	struct port_state *state;
	__u64 *holder;

	if (!f)
		return false;
	slot = f->slot;
	number = f->number;
	place = f->place;
	index = slot * HALF_OPEN_PLACES + (place - 1);
	if (bpf_map_delete_elem(&flows, &hash))
		return false;
	state = bpf_map_lookup_elem(&port_state, &slot);
	if (host)
		__sync_fetch_and_add(&host->flows, -1);
	if (!state || state->number != number)
		return true;
	if (!place) {
		__sync_fetch_and_add(&state->established, -1);
		return true;
	}
	__sync_fetch_and_add(&state->half_open, -1);
	holder = bpf_map_lookup_elem(&half_open, &index);
	if (holder && *holder == hash)
		*holder = 0;
	return true;
}

/* Takes a place for a half-open flow; if all are taken, the flow whose place comes next pays. The
 * place + 1. */
PROVEN_ONCE __u32 take_place(struct port_state *state, __u32 slot, __u32 places, __u64 hash)
{
	if (!state || !places)
		return 0;
	for (int i = 0; i < 32; i++) {
		__u32 place = __sync_fetch_and_add(&state->hand, 1) % places;
		__u32 index = slot * HALF_OPEN_PLACES + place;
		__u64 *holder = bpf_map_lookup_elem(&half_open, &index);
		struct flow *f;
		__u64 held;

		if (!holder)
			return 0;
		held = *holder;
		f = held ? bpf_map_lookup_elem(&flows, &held) : NULL;
		if (f && f->number == state->number && f->place == place + 1) {
			if (state->half_open < places && i < 31)
				continue;
			forget(f, held);
		}
		*holder = hash;
		return place + 1;
	}
	return 0;
}

/* What the hooks keep of the gate's port; most packets don't need it. */
static __always_inline struct port_state *state_of(struct gate *g)
{
	__u32 slot = g->slot;

	return bpf_map_lookup_elem(&port_state, &slot);
}

/* Has the host one more flow for the port? */
static __always_inline bool host_has_room(struct gate *g, struct port_state *state)
{
	__u32 zero = 0;
	struct host_state *host = bpf_map_lookup_elem(&host_state, &zero);

	return !host || host->flows < g->config->shared_flows ||
	       state->established + state->half_open < g->config->reserve_per_port;
}

/* May the port have one more flow? */
static __always_inline bool within_budget(struct gate *g, struct port_state *state)
{
	return state->established < g->config->flows_per_port && host_has_room(g, state);
}

static __noinline int start_flow(struct gate *g, struct tuple *t, __u64 hash, __u32 word)
{
	struct port_state *state = state_of(g);
	struct host_state *host;
	__u32 zero = 0;
	struct flow f = {
		.number = g->port->number, .slot = g->slot, .protocol = t->protocol,
		.kind = t->kind | (g->direction == DIR_EGRESS ? FLOW_EGRESS : 0),
		.local_l4 = t->local_l4, .remote_l4 = t->remote_l4,
		.generation = g->generation, .seen_ticks = g->now, .word = word,
	};

	if (!state || !within_budget(g, state))
		return FLOW_BUDGET;
	if (g->dry)
		return 0;
	__builtin_memcpy(f.local, t->local, 16);
	__builtin_memcpy(f.remote, t->remote, 16);
	f.place = take_place(state, g->slot, g->config->half_open_per_port, hash);
	if (!f.place)
		return FLOW_BUDGET;
	/* -EEXIST: another CPU has just started it, or a collision; the place falls free by itself. */
	if (bpf_map_update_elem(&flows, &hash, &f, BPF_NOEXIST)) {
		struct flow *other = bpf_map_lookup_elem(&flows, &hash);

		return other && is_flow(other, g->port->number, t) ? 0 : FLOW_BUDGET;
	}
	__sync_fetch_and_add(&state->half_open, 1);
	host = bpf_map_lookup_elem(&host_state, &zero);
	if (host)
		__sync_fetch_and_add(&host->flows, 1);
	return 0;
}

/* From half-open to established, if the budget has room. */
PROVEN_ONCE bool promote(__u32 limit, struct flow *f, __u64 hash)
{
	struct port_state *state;
	__u32 place, index, slot;
	__u64 *holder;

	if (!f || !f->place)
		return true;
	slot = f->slot;
	state = bpf_map_lookup_elem(&port_state, &slot);
	if (!state)
		return true;
	if (state->established >= limit)
		return false;
	place = __sync_lock_test_and_set(&f->place, 0);
	if (!place)
		return true;
	__sync_fetch_and_add(&state->established, 1);
	__sync_fetch_and_add(&state->half_open, -1);
	index = f->slot * HALF_OPEN_PLACES + (place - 1);
	holder = bpf_map_lookup_elem(&half_open, &index);
	if (holder && *holder == hash)
		*holder = 0;
	return true;
}

/* A packet of a live flow keeps it alive and moves its state. `reply`: against the original direction. */
static __always_inline void touch(struct gate *g, struct flow *f, __u64 hash, struct packet *p, bool reply)
{
	__u8 marks = f->marks, state = f->state;

	if (f->seen_ticks != g->now)
		f->seen_ticks = g->now;
	if (reply)
		marks |= FLOW_REPLIED;
	if (p->protocol != TCP) {
		if (reply && state == TCP_OPENING && promote(g->config->flows_per_port, f, hash))
			state = TCP_ESTABLISHED;
	} else if (p->tcp_flags & TCP_RST) {
		state = TCP_RESET;
	} else {
		if (state == TCP_OPENING && (p->tcp_flags & (TCP_ACK | TCP_SYN)) == TCP_ACK &&
		    (marks & FLOW_REPLIED) && promote(g->config->flows_per_port, f, hash))
			state = TCP_ESTABLISHED;
		if (p->tcp_flags & TCP_FIN)
			marks |= g->direction == DIR_EGRESS ? FLOW_FIN_LOCAL : FLOW_FIN_REMOTE;
		if ((marks & FLOW_FIN_LOCAL) && (marks & FLOW_FIN_REMOTE) && state != TCP_RESET)
			state = TCP_CLOSING;
	}
	if (marks != f->marks)
		f->marks = marks;
	if (state != f->state)
		f->state = state;
}

/* What permits the flow's first packet now; 0: nothing. */
static __always_inline __u32 flow_word(struct gate *g, struct flow *f, struct tuple *t)
{
	__u32 word;

	if (f->generation == g->generation)
		return f->word;
	word = flow_permits(g, t, f->kind & FLOW_EGRESS ? DIR_EGRESS : DIR_INGRESS);
	if (!g->dry) {
		f->word = word;
		f->generation = g->generation;
	}
	return word;
}

/* Does this packet start a flow where there is none? */
static __always_inline bool starts(struct gate *g, struct packet *p)
{
	if (p->destination_mac[0] & 1 || is_multicast(p->destination, p->family) ||
	    (p->family == FAM_V4 && is_broadcast(g->port, p->destination)))
		return false;
	if (p->protocol == TCP) {
		__u8 flags = p->tcp_flags & (TCP_SYN | TCP_ACK | TCP_FIN | TCP_RST);
		__u32 hold = g->port->hold_until;

		if (flags == TCP_SYN)
			return true;
		return flags == TCP_ACK && !(hold && (__s32)(hold - g->now) > 0);
	}
	return p->l4 != ICMP || is_request(p->destination_l4, p->family);
}

static __always_inline bool is_start_syn(struct packet *p)
{
	return p->protocol == TCP && (p->tcp_flags & (TCP_SYN | TCP_ACK | TCP_FIN | TCP_RST)) == TCP_SYN;
}

/* --- fragments --- */

static __always_inline void fragment_name(struct fragment_key *key, struct gate *g, struct packet *p)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->number = g->port->number;
	key->id = p->fragment_id;
	__builtin_memcpy(key->source, p->source, 16);
	__builtin_memcpy(key->destination, p->destination, 16);
	key->protocol = p->family == FAM_V4 ? p->protocol : 0;
	key->direction = g->direction;
	key->family = p->family;
}

/* 30 s in ticks. */
#define FRAGMENT_TICKS ((__u32)(30000000000ull >> TICK_SHIFT) + 1)

static __noinline int judge_later_fragment(struct gate *g, struct packet *p)
{
	struct fragment_entry *entry;
	struct fragment_key key;

	fragment_name(&key, g, p);
	entry = bpf_map_lookup_elem(&fragments, &key);
	if (!entry || g->now - entry->seen_ticks > FRAGMENT_TICKS)
		return ORPHAN_FRAGMENT;
	return p->fragment_at < entry->end ? BAD_FRAGMENT : PASS_FRAGMENT;
}

/* Remembers a first fragment that passed, in the next of the port's places; forgets one that didn't. */
static __noinline void note_first_fragment(struct gate *g, struct packet *p, bool passed)
{
	struct fragment_entry entry = { .end = p->fragment_at, .seen_ticks = g->now }, *old;
	struct port_state *state = state_of(g);
	struct fragment_key key, *place;
	__u32 index;

	fragment_name(&key, g, p);
	if (!passed || !state) {
		bpf_map_delete_elem(&fragments, &key);
		return;
	}
	entry.place = __sync_fetch_and_add(&state->fragment_hand, 1) % FRAGMENT_PLACES;
	index = g->slot * FRAGMENT_PLACES + entry.place;
	place = bpf_map_lookup_elem(&fragment_places, &index);
	if (!place)
		return;
	old = bpf_map_lookup_elem(&fragments, place);
	if (old && old->place == entry.place)
		bpf_map_delete_elem(&fragments, place);
	*place = key;
	bpf_map_update_elem(&fragments, &key, &entry, BPF_ANY);
}
