/* team.h: threads that go through many rounds in step: prepare (one thread), act (all at once), verify (one thread).
 * The barrier spins, so that all act within the same microsecond; on a busy machine it yields. */
#ifndef TEAM_H
#define TEAM_H
#include "check.h"
#include <sched.h>

static struct {
    int threads, waiting, turn;
    long rounds;
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
        meet();
        if (thread == 0 && team.verify) team.verify(round);
    }
    return NULL;
}

static inline void run_team(int threads, long how_often, void (*prepare)(long), void (*act)(long, int), void (*verify)(long)) {
    pthread_t others[16];
    uintptr_t i;
    team.threads = threads, team.waiting = 0;
    team.rounds = how_often;
    team.prepare = prepare, team.act = act, team.verify = verify;
    for (i = 1; i < (uintptr_t)threads; i++) {
        if (pthread_create(&others[i], NULL, team_member, (void *)i) != 0) abort();
    }
    team_member((void *)0);
    for (i = 1; i < (uintptr_t)threads; i++) pthread_join(others[i], NULL);
}

#endif
