/* SPDX-License-Identifier: MIT
 *
 * Late routing: two cores with a window of WINDOW tokens each, two routers, one class whose range is both cores, and one
 * who pauses and resumes.
 *
 * A router hands a token to a core whose has-room bit it sees set; when it sees none set, it puts the token into the
 * FIFO of the class, under the mutex, and then wakes a parked core of the range, if it finds one. It reads one bit at a
 * time, so what it saw may be stale: a core may get more than its window, and a token may go to the FIFO while a core
 * has run dry.
 *
 * A core runs what it has; at half its window or less it pulls a chunk (here one token) from the FIFO; it sets its bit from
 * what it has; with nothing left it parks: publishes it, pulls once more, and sleeps if it has found nothing and is still
 * published as parked. While there is a pause, a token that is pulled may be held (a pause may mean only some): then
 * the core has found nothing. Whoever pulls and leaves something in the FIFO wakes a parked core of the range: itself, if it
 * is the first. A core that wakes somebody reaps its ring, and with it its own wake-up. If the pause ends between a core's
 * look and the hold, the core routes the token anew. Who resumes routes what was held as a router does.
 *
 * The flaw to exclude is a token in the FIFO while the cores of its range sleep and no wake-up is on its way: during a
 * pause as well.
 * Macros that break it:
 *   SWALLOWED_WAKE  a core sleeps without a look at whether it is still parked
 *   HELD_NO_WAKE    a core whose chunk was held wakes nobody for what it left
 *   NO_SECOND_LOOK  a core does not look at the FIFO again after park
 *   NO_NUDGE        who filled the FIFO does not look for a parked core
 *   NUDGE_FIRST     … looks for one before
 */

#ifndef TOKENS
#define TOKENS 2 /* of the first router */
#endif
#ifndef MORE
#define MORE 1 /* of the second */
#endif
#ifndef WAITING
#define WAITING 0 /* in the FIFO at the beginning, when the cores are awake */
#endif
#ifndef WINDOW
#define WINDOW 1
#endif
#ifndef PAUSES
#define PAUSES 1
#endif
#define CORES 2

bool room[CORES] = true;
byte box[CORES];    /* tokens in the mailbox: one word … */
bool parked[CORES]; /* … with this */
bool woken[CORES];  /* a completion in the core's ring */
bool asleep[CORES];
byte fifo = WAITING; /* under a mutex: each operation is one step */
bool paused = false;
byte held = 0;
byte started = 0;
byte routing = 0; /* those other than the cores who have tokens in hand, or owe a wake-up */
byte routers_done = 0;

/* Wakes the first core of the range that is parked. */
inline wake_one_of_range() {
    c = 0;
    do
    :: c == CORES -> break
    :: c < CORES ->
        atomic { owed = parked[c]; parked[c] = false }
        if
        :: owed -> atomic { woken[c] = true; owed = false }; break
        :: else -> c++
        fi
    od;
    c = 0
}

/* To the first core that seems to have room; else to the FIFO. */
inline route(first) {
    atomic { tried = 0; routed = false }
    do
    :: tried == CORES || routed -> break
    :: else ->
        c = (first + tried) % CORES; /* positions are staggered */
        if
        :: room[c] ->
            atomic { owed = parked[c]; parked[c] = false; box[c]++ }
            if
            :: owed -> atomic { woken[c] = true; owed = false }
            :: else -> skip
            fi;
            routed = true
        :: else -> tried++
        fi
    od;
    atomic { c = 0; tried = 0 }
    if
    :: routed -> routed = false
    :: else ->
#ifdef NUDGE_FIRST
        wake_one_of_range();
#endif
        fifo++;
#ifndef NUDGE_FIRST
#ifndef NO_NUDGE
        wake_one_of_range()
#endif
#endif
    fi
}

proctype router(byte first; byte left) {
    byte c = 0, tried = 0;
    bool owed = false, routed = false;
    do
    :: left == 0 -> break
    :: left > 0 -> left--; route(first)
    od;
    atomic { routers_done++; routing-- }
}

proctype pauser() {
    byte left = PAUSES, freed = 0, c = 0, tried = 0;
    bool owed = false, routed = false;
    do
    :: left == 0 -> break
    :: left > 0 ->
        left--;
        paused = true;
        atomic { paused = false; freed = held; held = 0; routing++ }
        do
        :: freed == 0 -> break
        :: freed > 0 -> freed--; route(0)
        od;
        routing--
    od
}

inline pull() {
    if
    :: atomic { fifo > 0 -> fifo-- }
        if
        :: has++
        :: paused ->
            atomic {
                if
                :: paused -> held++; was_held = true
                :: else -> anew = true
                fi
            }
            if
            :: anew -> anew = false; route(self); woken[self] = false
            :: else -> skip
            fi
        fi;
        if
#ifdef HELD_NO_WAKE
        :: fifo > 0 && !was_held -> wake_one_of_range(); woken[self] = false
#else
        :: fifo > 0 -> wake_one_of_range(); woken[self] = false
#endif
        :: else -> skip
        fi;
        was_held = false
    :: atomic { fifo == 0 -> skip }
    fi
}

proctype core(byte self) {
    byte has = 0, c = 0, tried = 0;
    bool may_sleep = false, owed = false, routed = false, was_held = false, anew = false;
    do
    ::
        atomic { has = has + box[self]; box[self] = 0; parked[self] = false }
        room[self] = (has < WINDOW);
        if
        :: has > 0 -> atomic { has--; started++ }
        :: else -> skip
        fi;
        if
        :: has <= WINDOW / 2 -> pull()
        :: skip /* it looks at a hint, which may be old */
        fi;
        room[self] = (has < WINDOW);
        if
        :: has > 0 -> skip
        :: else ->
            atomic { may_sleep = (box[self] == 0); parked[self] = may_sleep }
            if
            :: may_sleep ->
#ifndef NO_SECOND_LOOK
                pull();
#endif
#ifdef SWALLOWED_WAKE
                may_sleep = (has == 0);
#else
                atomic { may_sleep = (has == 0 && parked[self]) }
#endif
                if
                :: may_sleep ->
                    asleep[self] = true;
end_asleep:         atomic { woken[self] -> asleep[self] = false }
                :: else -> skip
                fi;
                atomic { parked[self] = false; woken[self] = false; may_sleep = false }
            :: else -> skip
            fi
        fi
    od
}

init {
    atomic {
        routing = 2;
        run router(0, TOKENS);
        run router(1, MORE);
        run pauser();
        run core(0);
        run core(1)
    }
}

ltl none_forgotten {
    [] !(routing == 0 && asleep[0] && asleep[1] && !woken[0] && !woken[1] && (fifo > 0 || box[0] > 0 || box[1] > 0))
}
/* A parked core's bit is set, so routers find it before they resort to the FIFO, unless they looked earlier. */
ltl parked_has_room { [] !((asleep[0] && !room[0]) || (asleep[1] && !room[1])) }

/* With weak fairness every token is started. */
ltl all_started { <> (started == TOKENS + MORE + WAITING) }
