/* What reading and writing saved images share. */
#pragma once

#include "qfc/image_backup.h"

#define BACKUP_PREFIX "qfc-image-"
#define BACKUP_HIDDEN ".qfc-image-"
#define BACKUP_LOCK   ".qfc-image-lock"
#define BACKUP_SUFFIX ".tar.gz"

/* Under the lock; `place` is the open directory. Both do what they can: what stays is removed by the next save. */
void backup_remove_leftovers(const char *directory, int place);
void backup_remove_older(const char *directory, int place, const char *image);
