/* SPDX-License-Identifier: MIT
 *
 * Late routing: two cores with a window of WINDOW tokens each, two routers, one class whose range is both cores.
 *
 * A router hands a token to a core whose has-room bit it sees set; when it sees none set, it puts the token into the
 * FIFO of the class, under the mutex, and then wakes a parked core of the range, if it finds one. It reads one bit at a
 * time, so what it saw may be stale: a core may get more than its window, and a token may go to the FIFO while a core
 * has run dry. A core runs what it has; at half its window or less it takes a chunk (here one token) from the FIFO; it
 * sets its bit from what it holds; with nothing left it parks: publishes it, looks at the FIFO once more, sleeps.
 *
 * The flaw to exclude is a token in the FIFO while the cores of its range sleep and no wake-up is on its way.
 * Macros that break it:
 *   NO_SECOND_LOOK  a core does not look at the FIFO again after park
 *   NO_NUDGE        a router does not look for a parked core after it filled the FIFO
 *   NUDGE_FIRST     … looks for one before
 */

#ifndef TOKENS
#define TOKENS 2 /* a router's */
#endif
#ifndef WINDOW
#define WINDOW 1
#endif
#define CORES 2

bool room[CORES] = true;
byte box[CORES];      /* tokens in the mailbox: one word … */
bool parked[CORES];   /* … with this */
byte wakes[CORES];
bool asleep[CORES];
byte fifo = 0;
bool mutex = false;
byte routers_done = 0, started = 0;

inline lock() { atomic { !mutex -> mutex = true } }
inline unlock() { mutex = false }

inline wake_if(core, owed) {
    if
    :: owed -> wakes[core]++
    :: else -> skip
    fi;
    owed = false
}

inline wake_one_of_range() {
    c = 0;
    do
    :: c == CORES -> break
    :: c < CORES ->
        atomic { owed = parked[c]; parked[c] = false }
        if
        :: owed -> wake_if(c, owed); break
        :: else -> c++
        fi
    od;
    c = 0
}

proctype router(byte first) {
    byte left = TOKENS, c = 0, tried = 0;
    bool owed = false, routed = false;
    do
    :: left == 0 -> break
    :: left > 0 ->
        left--;
        routed = false;
        tried = 0;
        do
        :: tried == CORES || routed -> break
        :: else ->
            c = (first + tried) % CORES; /* positions are staggered */
            if
            :: room[c] ->
                atomic { owed = parked[c]; parked[c] = false; box[c]++ }
                wake_if(c, owed);
                routed = true
            :: else -> tried++
            fi
        od;
        c = 0;
        if
        :: routed -> skip
        :: else ->
#ifdef NUDGE_FIRST
            wake_one_of_range();
#endif
            lock();
            fifo++;
            unlock();
#ifndef NUDGE_FIRST
#ifndef NO_NUDGE
            wake_one_of_range()
#endif
#endif
        fi
    od;
    routers_done++
}

proctype core(byte self) {
    byte held = 0;
    bool may_sleep = false;
    do
    ::
        atomic { held = held + box[self]; box[self] = 0; parked[self] = false }
        room[self] = (held < WINDOW);
        if
        :: held > 0 -> atomic { held--; started++ }
        :: else -> skip
        fi;
        if
        :: held <= WINDOW / 2 ->
            lock();
            atomic {
                if
                :: fifo > 0 -> fifo--; held++
                :: else -> skip
                fi
            }
            unlock()
        :: else -> skip
        fi;
        room[self] = (held < WINDOW);
        if
        :: held > 0 -> skip
        :: else ->
            atomic { may_sleep = (box[self] == 0); parked[self] = may_sleep }
#ifndef NO_SECOND_LOOK
            if
            :: may_sleep ->
                lock();
                may_sleep = (fifo == 0);
                unlock()
            :: else -> skip
            fi;
#endif
            if
            :: may_sleep ->
                asleep[self] = true;
end_asleep:     atomic { wakes[self] > 0 -> wakes[self] = 0; asleep[self] = false }
            :: else -> skip
            fi
        fi
    od
}

init { atomic { run router(0); run router(1); run core(0); run core(1) } }

ltl none_forgotten {
    [] !(routers_done == 2 && asleep[0] && asleep[1] && wakes[0] == 0 && wakes[1] == 0
         && (fifo > 0 || box[0] > 0 || box[1] > 0))
}
/* A parked core's bit is set, so routers find it before they resort to the FIFO, unless they looked earlier. */
ltl parked_has_room { [] !((asleep[0] && !room[0]) || (asleep[1] && !room[1])) }

/* With weak fairness every token is started. */
ltl all_started { <> (started == 2 * TOKENS) }
