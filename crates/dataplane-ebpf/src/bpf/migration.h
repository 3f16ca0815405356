/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* Stage conntrack, between two hosts: a flow that the port had on the other one is taken in. By the kernel,
 * as hooks may be at work on the port meanwhile: counts are theirs, too.
 */
#pragma once

/* What becomes of it; migration.rs. */
#define ADOPTED 0
#define ADOPT_NOBODYS 1
#define ADOPT_EXPIRED 2
#define ADOPT_NOT_THE_PORTS 3
#define ADOPT_ELIDABLE 4
#define ADOPT_KNOWN 5
#define ADOPT_BUDGET 6
#define ADOPT_PLACE_TAKEN 7

/* Takes this very place for a half-open flow, if nobody has it. */
PROVEN_ONCE bool claim_place(struct port_state *state, __u32 slot, __u32 place, __u64 hash)
{
	__u32 index = slot * HALF_OPEN_PLACES + (place - 1);
	struct flow *f;
	__u64 *holder, held;

	if (!state || place - 1 >= HALF_OPEN_PLACES)
		return false;
	holder = bpf_map_lookup_elem(&half_open, &index);
	if (!holder)
		return false;
	held = *holder;
	f = held ? bpf_map_lookup_elem(&flows, &held) : NULL;
	if (f && f->number == state->number && f->place == place)
		return false;
	*holder = hash;
	return true;
}

/* True: an unexpired one of its name is there; an expired one goes. */
static __noinline bool is_known(struct gate *g, struct tuple *t, __u64 hash)
{
	struct flow *f = bpf_map_lookup_elem(&flows, &hash);

	if (!f)
		return false;
	/* A collision can't be helped: there is one place. */
	if (!is_flow(f, g->port->number, t) || !is_expired(g->config, f, g->now))
		return true;
	forget(f, hash);
	return false;
}

static __noinline int enter_flow(struct gate *g, struct flow *f, __u64 hash)
{
	struct port_state *state = state_of(g);
	struct host_state *host;
	__u32 zero = 0;

	if (!state || !host_has_room(g, state))
		return ADOPT_BUDGET;
	if (f->place ? state->half_open >= g->config->half_open_per_port
		     : state->established >= g->config->flows_per_port)
		return ADOPT_BUDGET;
	if (f->place && !claim_place(state, g->slot, f->place, hash))
		return ADOPT_PLACE_TAKEN;
	/* If it fails the place falls free by itself. */
	if (bpf_map_update_elem(&flows, &hash, f, BPF_NOEXIST))
		return bpf_map_lookup_elem(&flows, &hash) ? ADOPT_KNOWN : ADOPT_BUDGET;
	__sync_fetch_and_add(f->place ? &state->half_open : &state->established, 1);
	host = bpf_map_lookup_elem(&host_state, &zero);
	if (host)
		__sync_fetch_and_add(&host->flows, 1);
	return ADOPTED;
}

/* Under the policy in force here: what permits its first packet is asked now. What nothing permits stays, dead,
 * as it would have on the other host: so its tuple is not taken for a new flow's. */
static __always_inline int adopt_flow(struct flow *f)
{
	__u32 how = HOW_RUN | (f->kind & FLOW_EGRESS ? DIR_EGRESS : DIR_INGRESS);
	struct tuple t = {
		.local_l4 = f->local_l4, .remote_l4 = f->remote_l4, .protocol = f->protocol,
		.kind = f->kind & ~FLOW_EGRESS,
	};
	struct gate g;
	__u64 hash;

	if (!open_gate(&g, f->slot, how) || g.port->number != f->number)
		return ADOPT_NOBODYS;
	__builtin_memcpy(t.local, f->local, 16);
	__builtin_memcpy(t.remote, f->remote, 16);
	if (is_expired(g.config, f, g.now))
		return ADOPT_EXPIRED;
	if (!is_ports(g.port, MAC_DESTINATION, t.kind & FLOW_V6 ? FAM_V6 : FAM_V4, t.local))
		return ADOPT_NOT_THE_PORTS;
	if (is_elidable(&g, f))
		return ADOPT_ELIDABLE;
	hash = flow_hash(g.config, f->number, &t);
	if (is_known(&g, &t, hash))
		return ADOPT_KNOWN;
	f->generation = g.generation;
	f->word = flow_permits(&g, &t, g.direction);
	return enter_flow(&g, f, hash);
}

/* For BPF_PROG_RUN alone. The frame: an Ethernet header, and a flow, of which this host's generation and word
 * are missing; `place` is the one that it would have. The answer comes back in cb. */
SEC("tc") int adopt(struct __sk_buff *skb)
{
	struct flow f;
	int answer = ADOPT_NOBODYS;

	if (!bpf_skb_load_bytes(skb, 14, &f, sizeof(f)))
		answer = adopt_flow(&f);
	skb->cb[0] = answer;
	return TC_ACT_UNSPEC;
}
