/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* Stage hook: whose device is it, and what is in force there? */
#pragma once

static __always_inline struct config *settings(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&config, &zero);
}

static __always_inline __u32 slot_of(__u32 ifindex)
{
	__u32 low = ifindex & 0xffff, *more;
	struct device *device = bpf_map_lookup_elem(&devices, &low);

	if (device && device->ifindex == ifindex)
		return device->slot;
	more = bpf_map_lookup_elem(&devices_more, &ifindex);
	return more ? *more : SLOT_CLOSED;
}

/* The record in force of a slot; NULL: no port. */
static __always_inline struct port *port_in(__u32 slot)
{
	__u32 *index = bpf_map_lookup_elem(&port_index, &slot);
	__u32 record;
	struct port *port;

	if (!index)
		return NULL;
	record = slot * PORT_RECORDS + *(volatile __u32 *)index;
	port = bpf_map_lookup_elem(&ports, &record);
	return port && port->number ? port : NULL;
}

static __always_inline struct port *port_of(__u32 ifindex)
{
	return port_in(slot_of(ifindex));
}
