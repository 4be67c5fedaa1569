/*
 * What belongs together in an exported image (Docker: "Docker Image Specification v1.2", combined image JSON and
 * filesystem changeset; OCI image layout, image-spec v1.0):
 *
 *   manifest.json    [{"Config": FILE, "Layers": [FILE, ...]}], one element, as one image was exported
 *   Config           its SHA-256 is the image's id; rootfs.diff_ids: the SHA-256 of each layer, unpacked
 *   index.json       where there is one: the SHA-256 of the manifest or the index that is the image's id in engines with
 *                    containerd's image store; the blobs are named by their own SHA-256
 */
#include "image_archive_private.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOBS     "blobs/sha256/"
#define LINKS_MAX 8
#define PATH_SIZE 2048

struct file *contents_add(struct contents *contents, const char *name, struct qfc_error *error)
{
    for (size_t i = 0; i < contents->count; i++) {
        if (strcmp(contents->files[i].name, name) == 0) {
            qfc_fail(error, QFC_ERROR_INVALID, 0, "two files of the name %s", name);
            return NULL;
        }
    }
    if (contents->count == contents->room) {
        size_t room = contents->room ? 2 * contents->room : 64;
        struct file *files = reallocarray(contents->files, room, sizeof *files);
        if (!files) {
            qfc_fail_memory(error);
            return NULL;
        }
        contents->files = files;
        contents->room = room;
    }
    struct file *file = &contents->files[contents->count];
    *file = (struct file){.name = strdup(name)};
    if (!file->name) {
        qfc_fail_memory(error);
        return NULL;
    }
    contents->count++;
    return file;
}

void contents_free(struct contents *contents)
{
    for (size_t i = 0; i < contents->count; i++) {
        free(contents->files[i].name);
        free(contents->files[i].link);
        qfc_buffer_free(&contents->files[i].json);
    }
    free(contents->files);
    *contents = (struct contents){0};
}

static const struct file *named(const struct contents *contents, const char *name)
{
    for (size_t i = 0; i < contents->count; i++)
        if (strcmp(contents->files[i].name, name) == 0)
            return &contents->files[i];
    return NULL;
}

/* "a/b/../c" -> "a/c" in place; false for what leads out. */
static bool flatten(char *path)
{
    char *out = path, *rest;

    for (char *part = strtok_r(path, "/", &rest); part; part = strtok_r(NULL, "/", &rest)) {
        if (strcmp(part, ".") == 0)
            continue;
        if (strcmp(part, "..") == 0) {
            if (out == path)
                return false;
            out = out - 1 > path ? memrchr(path, '/', (size_t)(out - 1 - path)) : NULL;
            out = out ? out + 1 : path;
            continue;
        }
        size_t length = strlen(part);
        memmove(out, part, length);
        out += length;
        *out++ = '/';
    }
    if (out == path)
        return false;
    out[-1] = '\0';
    return true;
}

/* The file of that name that was read, through links, or null. */
static const struct file *find(const struct contents *contents, const char *name)
{
    const struct file *file = named(contents, name);
    char path[PATH_SIZE];

    for (int links = 0; file && file->link; links++) {
        const char *slash = file->link_from_root ? NULL : strrchr(file->name, '/');
        int directory = slash ? (int)(slash - file->name + 1) : 0;
        int length = snprintf(path, sizeof path, "%.*s%s", directory, file->name, file->link);
        if (links == LINKS_MAX || length >= (int)sizeof path || !flatten(path))
            return NULL;
        file = named(contents, path);
    }
    return file && file->is_read ? file : NULL;
}

static json_t *parse(const struct file *file)
{
    return file ? json_loadb(qfc_buffer_text(&file->json), file->json.size, JSON_REJECT_DUPLICATES, NULL) : NULL;
}

/* "sha256:..." -> the digits, or null. */
static const char *digits(const char *digest)
{
    return digest && strncmp(digest, "sha256:", 7) == 0 && strlen(digest) == QFC_IMAGE_ID_SIZE - 1 ? digest + 7 : NULL;
}

static const struct file *blob(const struct contents *contents, const json_t *descriptor)
{
    const char *hex = digits(json_string_value(json_object_get(descriptor, "digest")));
    char name[sizeof BLOBS + QFC_SHA256_SIZE];

    if (!hex)
        return NULL;
    snprintf(name, sizeof name, BLOBS "%s", hex);
    return find(contents, name);
}

static int check_blobs(const struct contents *contents, struct qfc_error *error)
{
    for (size_t i = 0; i < contents->count; i++) {
        const struct file *file = &contents->files[i];
        if (strncmp(file->name, BLOBS, sizeof BLOBS - 1) == 0 && file->is_read &&
            strcmp(file->name + sizeof BLOBS - 1, file->raw) != 0)
            return qfc_fail(error, QFC_ERROR_INVALID, 0, "%s is damaged: its SHA-256 is %s", file->name, file->raw);
    }
    return 0;
}

/* Is this OCI manifest, or one of those in this OCI index, that of the configuration? Indices may name what was not
 * exported: other platforms. */
static bool leads_to(const struct contents *contents, const struct file *file, const char *config, int depth)
{
    json_t *json = parse(file), *item;
    const char *hex = digits(json_string_value(json_object_get(json_object_get(json, "config"), "digest")));
    bool found = hex && strcmp(hex, config) == 0;
    size_t i;

    if (depth > 0) {
        json_array_foreach(json_object_get(json, "manifests"), i, item) found =
            found || leads_to(contents, blob(contents, item), config, depth - 1);
    }
    json_decref(json);
    return found;
}

static bool is_index_of(const struct contents *contents, const char *id, const char *config)
{
    json_t *index = parse(find(contents, "index.json")), *item;
    bool found = false;
    size_t i;

    json_array_foreach(json_object_get(index, "manifests"), i, item)
    {
        const char *digest = json_string_value(json_object_get(item, "digest"));
        if (digest && strcmp(digest, id) == 0)
            found = found || leads_to(contents, blob(contents, item), config, 2);
    }
    json_decref(index);
    return found;
}

static int check_id(const struct contents *contents, const char *id, const struct file *config, struct qfc_error *error)
{
    if (digits(id) && (strcmp(digits(id), config->raw) == 0 || is_index_of(contents, id, config->raw)))
        return 0;
    return qfc_fail(error, QFC_ERROR_INVALID, 0, "it holds another image: sha256:%s, and not %s", config->raw, id);
}

static int check_layer(const struct contents *contents, const json_t *name, const json_t *diff_id, size_t number,
                       size_t count, struct qfc_error *error)
{
    const char *layer = json_string_value(name), *expected = digits(json_string_value(diff_id));
    const struct file *file = layer ? find(contents, layer) : NULL;

    if (!file)
        return qfc_fail(error, QFC_ERROR_INVALID, 0, "layer %zu of %zu is not in it", number, count);
    if (!expected)
        return qfc_fail(error, QFC_ERROR_INVALID, 0, "the configuration has no SHA-256 for layer %zu", number);
    if (strcmp(file->raw, expected) != 0 && strcmp(file->unpacked, expected) != 0)
        return qfc_fail(error, QFC_ERROR_INVALID, 0, "layer %zu of %zu (%s) is damaged: its SHA-256 is %s, and not %s",
                        number, count, file->name, *file->unpacked ? file->unpacked : file->raw, expected);
    return 0;
}

static int check_layers(const struct contents *contents, const json_t *layers, const struct file *config,
                        struct qfc_error *error)
{
    json_t *json = parse(config);
    const json_t *diff_ids = json_object_get(json_object_get(json, "rootfs"), "diff_ids");
    size_t count = json_array_size(layers);
    int r = 0;

    if (!json_is_array(diff_ids) || count != json_array_size(diff_ids) || count == 0)
        r = qfc_fail(error, QFC_ERROR_INVALID, 0, "it lists %zu layers, and its configuration %zu", count,
                     json_array_size(diff_ids));
    for (size_t i = 0; i < count && r == 0; i++)
        r = check_layer(contents, json_array_get(layers, i), json_array_get(diff_ids, i), i + 1, count, error);
    json_decref(json);
    return r;
}

int contents_check(const struct contents *contents, const char *id, struct qfc_error *error)
{
    json_t *manifest = parse(find(contents, "manifest.json"));
    const json_t *image = json_array_get(manifest, 0);
    const char *name = json_string_value(json_object_get(image, "Config"));
    const struct file *config = name ? find(contents, name) : NULL;
    int r;

    if (json_array_size(manifest) != 1)
        r = qfc_fail(error, QFC_ERROR_INVALID, 0, "no manifest.json of one image in it");
    else if (!config)
        r = qfc_fail(error, QFC_ERROR_INVALID, 0, "its configuration is not in it");
    else if ((r = check_id(contents, id, config, error)) == 0 && (r = check_blobs(contents, error)) == 0)
        r = check_layers(contents, json_object_get(image, "Layers"), config, error);
    json_decref(manifest);
    return r;
}
