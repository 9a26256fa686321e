/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Placement: where and when a task runs, as far as that does not depend on what it is a
 * donor or an owner of. Pure C behind the ports of core/ports.h, like the core, and held
 * against the model with it. It knows no more of donors than the first key of a queue.
 */
#ifndef PROXY_PLACE_H
#define PROXY_PLACE_H

#include "bits.h"
#include "idle.h"
#include "runq.h"
#include "pull.h"
#include "select.h"
#include "perf.h"
#include "tickless.h"
#include "hrtick.h"
#include "kick.h"

#endif /* PROXY_PLACE_H */
