/* SPDX-License-Identifier: MIT
 *
 * The lock of a shelf: its owner enters often and without a fence, others seldom and with membarrier().
 *
 *   owner   stores inside = 1, loads wanted; if it is wanted, stores inside = 0, waits until it is not, and tries again.
 *           Inside it pushes or pops one token; then it stores inside = 0
 *   taker   under a mutex: stores wanted = 1, membarrier(PRIVATE_EXPEDITED), waits until inside is 0 (or gives up), takes all
 *           tokens, stores wanted = 0
 *
 * The memory is x86's: the owner's stores go through a store buffer, a queue of STORES; an entry reaches memory at any
 * later time, and a load of the owner's finds its own newest store there. membarrier() empties the buffer. Loads are not
 * reordered with loads, nor stores with stores. The takers' stores are in memory at once: between storing wanted = 1 and the first
 * look at inside lies membarrier(), a full barrier for the caller too; all their other stores leave in order, so a buffer of theirs
 * would only delay what the owner waits for. On other machines the loads of `wanted` and `inside` must acquire, the stores
 * of 0 release.
 *
 * Tokens are bits. Whoever runs one that has run already, or ends with one that has not, finds an assertion.
 * Macros that break it:
 *   NO_MEMBARRIER        a taker does not empty the owner's buffer
 *   TAKER_DOES_NOT_WAIT  … it does not wait until inside is 0
 *   OWNER_DOES_NOT_LOOK  the owner does not look at wanted
 */

#ifndef TOKENS
#define TOKENS 2
#endif
#ifndef TAKERS
#define TAKERS 2
#endif
#ifndef ROUNDS
#define ROUNDS 2 /* of each taker */
#endif
#ifndef STORES
#define STORES 2
#endif
#define ALL ((1 << TOKENS) - 1)

/* memory */
bool inside = false, wanted = false, mutex = false;
byte shelf = 0;

/* the owner's store buffer, and what the owner would load: its newest stores */
mtype = { to_inside, to_shelf };
chan buffer = [STORES] of { mtype, byte };
byte own_shelf = 0;
byte shelf_stores = 0; /* in the buffer */

/* for the claims */
bool wants_in = false, owner_in = false, taker_in = false;
byte ran = 0;
bool owner_done = false;
byte takers_done = 0;

inline drain_one() {
    if
    :: buffer ? to_inside, value -> inside = value
    :: buffer ? to_shelf, value -> shelf = value; shelf_stores--
    fi
}

proctype store_buffer() {
    byte value = 0;
    do
    :: atomic { nempty(buffer) -> drain_one(); value = 0 }
    :: owner_done && empty(buffer) -> break
    od
}

inline run_those(tokens) {
    atomic {
        assert((ran & (tokens)) == 0);
        ran = ran | (tokens)
    }
}

proctype taker() {
    byte left = ROUNDS, value = 0, taken = 0;
    do
    :: left == 0 -> break
    :: left > 0 ->
        left--;
        atomic { !mutex -> mutex = true }
        wanted = true;
#ifndef NO_MEMBARRIER
        atomic {
            do
            :: nempty(buffer) -> drain_one()
            :: empty(buffer) -> break
            od;
            value = 0
        }
#endif
        if
#ifdef TAKER_DOES_NOT_WAIT
        :: true ->
#else
        :: !inside ->
#endif
            taker_in = true;
            taken = shelf;
            shelf = 0;
            taker_in = false;
            wanted = false;
            run_those(taken);
            taken = 0
        :: wanted = false /* it gives up */
        fi;
        mutex = false
    od;
    takers_done++
}

inline enter() {
    wants_in = true;
    do
    ::
        buffer ! to_inside, 1;
#ifdef OWNER_DOES_NOT_LOOK
        atomic { owner_in = true; wants_in = false }
        break
#else
        if
        :: atomic { !wanted -> owner_in = true; wants_in = false }
            break
        :: else ->
            buffer ! to_inside, 0;
            !wanted
        fi
#endif
    od
}

inline leave() {
    owner_in = false;
    buffer ! to_inside, 0
}

inline load_shelf() {
    if
    :: atomic { shelf_stores > 0 -> seen = own_shelf }
    :: atomic { shelf_stores == 0 -> seen = shelf }
    fi
}

inline store_shelf(tokens) { atomic { nfull(buffer) -> buffer ! to_shelf, tokens; own_shelf = tokens; shelf_stores++ } }

proctype owner() {
    byte next = 0, seen = 0, token = 0;
    bool last = false;      /* all are pushed, and it has found the shelf empty */
    bool was_empty = false; /* then it pushes before it looks again */
    do
    :: last -> break
    :: !last && next < TOKENS ->
        enter();
        load_shelf();
        store_shelf(seen | (1 << next));
        leave();
        atomic { next++; seen = 0; was_empty = false }
    :: !last && !was_empty ->
        enter();
        load_shelf();
        if
        :: seen == 0 -> was_empty = true; last = (next == TOKENS)
        :: else ->
            token = seen & (255 - (seen - 1)); /* the lowest */
            store_shelf(seen - token)
        fi;
        leave();
        run_those(token);
        atomic { token = 0; seen = 0 }
    od;
    owner_done = true
}

init {
    byte i = 0;
    atomic {
        do
        :: i < TAKERS -> run taker(); i++
        :: else -> break
        od;
        i = 0;
        run store_buffer();
        run owner()
    }
    owner_done && takers_done == TAKERS && empty(buffer);
    assert(ran == ALL && shelf == 0 && !inside && !wanted)
}

ltl mutual_exclusion { [] !(owner_in && taker_in) }

/* With weak fairness: the owner gets in whenever it wants to. */
ltl owner_gets_in { [] (wants_in -> <> owner_in) }

/* With weak fairness: everything ends (init's assertion then holds: each token has run once). */
ltl all_run { <> (owner_done && takers_done == TAKERS && ran == ALL) }
