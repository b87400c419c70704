/* campaign_level.h - shared code of the campaigns; see campaign.h. */
#ifndef WB_TEST_CAMPAIGN_LEVEL_H
#define WB_TEST_CAMPAIGN_LEVEL_H

#include "campaign.h"

/* A disk and its workload; each level is a copy of the one before. */
struct level {
    struct powercut disk;
    struct workload w;
    struct campaign *c;
    uint64_t seed;
    int depth;
    enum powercut_loss loss; /* that made it */
    long at;
};
extern struct level campaign_level[CAMPAIGN_DEPTH + 1];

void campaign_begin(struct campaign *c); /* defaults filled in */
void campaign_end(void);

/* An empty disk, and a workload on it that has not begun. */
void campaign_start(struct level *l, uint64_t seed, bool psow);
/* Close the handles and add up what was acknowledged. */
void campaign_stop(struct level *l);
/* Add the findings; the text of the first is kept. */
void campaign_report(
    struct campaign *c, const struct level *l, const struct findings *f);
/* Copy the disk as a cut now would leave it, and check the copy. */
void campaign_check_copy(const struct level *from, const struct powercut *disk,
    enum powercut_loss loss);

/* The hook of a disk: check every loss mode of a cut now. */
void campaign_at_operation(void *ctx, struct powercut *disk);

#endif /* WB_TEST_CAMPAIGN_LEVEL_H */
