/* The threads, and the loop over the operations. */

#include "engine.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

/* Within a run the threads wait for each other by looking; between runs they sleep. */
struct Pool {
    pthread_t* workers;
    int64_t threads;
    Job job;
    const Run* run;
    int64_t jobs;
    _Atomic int64_t next, busy;
    _Atomic uint64_t round;
    _Atomic int awake, closing;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
};

#define LOOKS 2000 /* before the processor is offered to others */

static void pause_a_little(int* looks) {
    if (++*looks < LOOKS) {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    } else {
        sched_yield();
    }
}

static void work(Pool* pool) {
    for (;;) {
        int64_t index = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
        if (index >= pool->jobs) return;
        pool->job(pool->run, index);
    }
}

static void* worker(void* given) {
    Pool* pool = given;
    uint64_t seen = 0;
    for (;;) {
        pthread_mutex_lock(&pool->mutex);
        while (!atomic_load(&pool->awake) && !atomic_load(&pool->closing))
            pthread_cond_wait(&pool->wake, &pool->mutex);
        pthread_mutex_unlock(&pool->mutex);
        if (atomic_load(&pool->closing)) return 0;
        int looks = 0;
        while (atomic_load(&pool->awake)) {
            uint64_t round = atomic_load_explicit(&pool->round, memory_order_acquire);
            if (round == seen) {
                pause_a_little(&looks);
                continue;
            }
            seen = round;
            looks = 0;
            work(pool);
            atomic_fetch_sub_explicit(&pool->busy, 1, memory_order_release);
        }
    }
}

void parallel(Pool* pool, int64_t jobs, Job job, const Run* run) {
    if (jobs <= 0) return;
    if (pool->threads == 1 || jobs == 1) {
        for (int64_t index = 0; index < jobs; index++) job(run, index);
        return;
    }
    pool->job = job;
    pool->run = run;
    pool->jobs = jobs;
    atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
    atomic_store_explicit(&pool->busy, pool->threads - 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&pool->round, 1, memory_order_release);
    work(pool);
    int looks = 0;
    while (atomic_load_explicit(&pool->busy, memory_order_acquire)) pause_a_little(&looks);
}

int64_t threads_of(const Pool* pool) { return pool->threads; }

void engine_close(Pool* pool) {
    pthread_mutex_lock(&pool->mutex);
    atomic_store(&pool->closing, 1);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
    for (int64_t index = 0; index < pool->threads - 1; index++) pthread_join(pool->workers[index], 0);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->mutex);
    free(pool->workers);
    free(pool);
}

/* Threads that share the operations of one engine; 0 where they cannot be had. */
Pool* engine_open(int64_t threads) {
    Pool* pool = calloc(1, sizeof *pool);
    if (!pool) return 0;
    pthread_mutex_init(&pool->mutex, 0);
    pthread_cond_init(&pool->wake, 0);
    pool->threads = 1;
    pool->workers = calloc(threads, sizeof *pool->workers);
    for (int64_t index = 0; pool->workers && index < threads - 1; index++) {
        if (pthread_create(&pool->workers[index], 0, worker, pool)) break;
        pool->threads++;
    }
    if (pool->threads == threads) return pool;
    engine_close(pool);
    return 0;
}

static void set_awake(Pool* pool, int awake) {
    if (pool->threads == 1) return;
    pthread_mutex_lock(&pool->mutex);
    atomic_store(&pool->awake, awake);
    if (awake) pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static void (*const operations[])(Run*) = {convolution,   winograd,    pool_maximum, pool_average,
                                           response_norm, read_pixels, clear_border};

/* All operations in turn. `seconds`, where given, has room for the time of each. */
void engine_run(Pool* pool, const Operation* program, int64_t count, char* arena, const char* weights,
                const uint8_t* pixels, double* seconds) {
    set_awake(pool, 1);
    for (int64_t index = 0; index < count; index++) {
        Run run = {.operation = &program[index], .arena = arena, .weights = weights, .pixels = pixels, .pool = pool};
        double started = seconds ? now() : 0;
        operations[program[index].kind](&run);
        if (seconds) seconds[index] = now() - started;
    }
    set_awake(pool, 0);
}

/* Whether the code was made for a processor with vectors of 512 bits, and with products of bfloat16. */
int engine_has_wide_vectors(void) {
#ifdef __AVX512F__
    return 1;
#else
    return 0;
#endif
}

int engine_has_bfloat16(void) {
#ifdef __AVX512BF16__
    return 1;
#else
    return 0;
#endif
}
