/* SPDX-License-Identifier: MIT
 *
 * What a running token makes ready, and a core that goes to sleep: whoever puts something aside (on its own shelf, in an outbox, on
 * the way to the gate) looks afterwards who sleeps; whoever is about to sleep says so and looks around afterwards (put_aside in
 * runtime/executor/placing.cpp, park in runtime/loop/event_loop.cpp, starves in
 * runtime/routing/load_table.hpp, tell_sleepers in runtime/routing/router.hpp).
 *
 *   1 teller         routes TOKENS and then computes for ever. It hands one over at once where it finds the sleeper hungry; else it
 *                    puts it aside, by a plain store, which is delayed (`delayed`) until it drains or somebody's membarrier
 *                    drains it
 *   1 sleeper        runs what it has; idle: says that it is asleep, parks, has a membarrier executed, looks around, sleeps
 *   SPURIOUS         so often somebody nudges the sleeper for nothing
 *
 * Defining one of these macros breaks the protocol in one place, and the checker must then complain:
 *   NO_LOOK_AFTER    the teller looks only while it routes
 *   NO_MEMBARRIER    nobody drains what the teller has stored
 *   LOOK_FIRST       the sleeper looks around and then says that it sleeps
 *   FED_LATE         who hands over says that the sleeper is fed only after the push
 */

#ifndef TOKENS
#define TOKENS 2
#endif
#ifndef SPURIOUS
#define SPURIOUS 1
#endif

byte aside = 0, delayed = 0, mail = 0, begun = 0;
bool hungry = false, parked = false, woken = false, asleep = false;
byte on_the_way = 0;
bool looking = false; /* the teller has put something aside and has still to look */

inline nudge() {
    atomic {
        if
        :: parked -> parked = false; owed = true; on_the_way++
        :: else -> skip
        fi
    }
    if
    :: owed -> atomic { woken = true; owed = false; on_the_way-- }
    :: else -> skip
    fi
}

inline hand_over() {
#ifndef FED_LATE
    hungry = false;
#endif
    atomic { mail++; on_the_way++ }
    nudge();
    on_the_way--;
#ifdef FED_LATE
    hungry = false;
#endif
}

proctype teller() {
    byte left = TOKENS;
    bool owed = false;
    do
    :: left == 0 -> break
    :: else ->
        left--;
        if
        :: hungry -> hand_over()
        :: !hungry ->
            atomic { delayed++; looking = true }
#ifndef NO_LOOK_AFTER
            if
            :: hungry -> nudge()
            :: else -> skip
            fi;
#endif
            looking = false
        fi
    od
}

/* The store buffer of the teller's processor. */
proctype buffer() {
    do
    :: atomic { delayed > 0 -> aside = aside + delayed; delayed = 0 }
    :: begun == TOKENS -> break
    od
}

proctype stranger() {
    byte left = SPURIOUS;
    bool owed = false;
    do
    :: left == 0 -> break
    :: else -> left--; nudge()
    od
}

inline say() { hungry = true }

inline look() {
#ifndef NO_MEMBARRIER
    atomic { aside = aside + delayed; delayed = 0 }
#endif
    atomic {
        if
        :: aside > 0 -> begun = begun + aside; aside = 0; found = true
        :: else -> skip
        fi
    }
}

proctype sleeper() {
    bool found = false;
    do
    ::
        hungry = false;
        atomic { begun = begun + mail; mail = 0 }
        if
        :: begun == TOKENS -> break
        :: else -> skip
        fi;
#ifdef LOOK_FIRST
        parked = true;
        look();
        say();
#else
        say();
        parked = true;
        look();
#endif
        if
        :: !found && mail == 0 && parked ->
            asleep = true;
            end: atomic { woken -> asleep = false; woken = false }
        :: else -> skip
        fi;
        atomic { parked = false; found = false }
    od
}

init { atomic { run teller(); run buffer(); run stranger(); run sleeper() } }

#define waits (aside + delayed + mail > 0)

ltl none_kept { [] !(asleep && !woken && on_the_way == 0 && !looking && waits) }
