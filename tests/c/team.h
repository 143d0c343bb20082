/* team.h: threads that go through many rounds in step: prepare (one thread), act (all at once), verify (one thread).
 * The barrier spins, so that all act within the same microsecond; on a busy machine it yields, and
 * a round takes as long as a slice of the scheduler, a thousand times longer. So after half a
 * minute a twentieth of the rounds must do. */
#ifndef TEAM_H
#define TEAM_H
#include "check.h"
#include <sched.h>
#include <time.h>

static struct {
    int threads, waiting, turn;
    long rounds;
    time_t started; /* the first team of the program */
    void (*prepare)(long round), (*act)(long round, int thread), (*verify)(long round);
} team;

static inline void meet(void) {
    int turn = __atomic_load_n(&team.turn, __ATOMIC_ACQUIRE), spins = 0;
    if (__atomic_add_fetch(&team.waiting, 1, __ATOMIC_ACQ_REL) == team.threads) {
        __atomic_store_n(&team.waiting, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&team.turn, turn + 1, __ATOMIC_RELEASE);
        return;
    }
    while (__atomic_load_n(&team.turn, __ATOMIC_ACQUIRE) == turn) {
        if (++spins > 200) sched_yield();
    }
}

static inline void *team_member(void *number) {
    int thread = (int)(uintptr_t)number;
    long round;
    for (round = 0; round < team.rounds; round++) {
        if (thread == 0 && team.prepare) team.prepare(round);
        meet();
        team.act(round, thread);
        if (thread == 0 && round >= team.rounds / 20 && time(NULL) > team.started + 30) team.rounds = round + 1;
        meet();
        if (thread == 0 && team.verify) team.verify(round);
    }
    return NULL;
}

/* Says how many rounds there were. */
static inline long run_team(int threads, long how_often, void (*prepare)(long), void (*act)(long, int), void (*verify)(long)) {
    pthread_t others[16];
    uintptr_t i;
    team.threads = threads, team.waiting = 0;
    team.rounds = how_often;
    if (!team.started) team.started = time(NULL);
    team.prepare = prepare, team.act = act, team.verify = verify;
    for (i = 1; i < (uintptr_t)threads; i++) {
        if (pthread_create(&others[i], NULL, team_member, (void *)i) != 0) abort();
    }
    team_member((void *)0);
    for (i = 1; i < (uintptr_t)threads; i++) pthread_join(others[i], NULL);
    return team.rounds;
}

#endif
