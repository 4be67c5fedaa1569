/*
 * What a JSON string says: its escapes decoded. Apart from json_scan.c, which only asks whether they are sound.
 */
#include "json_scan.h"
#include "qfc/text.h"

#include <stdlib.h>
#include <string.h>

static int hex_digit(unsigned char byte)
{
    if (byte >= '0' && byte <= '9')
        return byte - '0';
    if (byte >= 'a' && byte <= 'f')
        return byte - 'a' + 10;
    if (byte >= 'A' && byte <= 'F')
        return byte - 'A' + 10;
    return -1;
}

int32_t json_code_unit(const unsigned char *at, const unsigned char *end)
{
    if (end - at < JSON_ESCAPE_SIZE || at[0] != '\\' || at[1] != 'u')
        return -1;
    int32_t unit = 0;
    for (int i = 2; i < JSON_ESCAPE_SIZE; i++) {
        int digit = hex_digit(at[i]);
        if (digit < 0)
            return -1;
        unit = unit * 16 + digit;
    }
    return unit;
}

bool json_is_high_surrogate(int32_t unit)
{
    return unit >= 0xD800 && unit <= 0xDBFF;
}

bool json_is_low_surrogate(int32_t unit)
{
    return unit >= 0xDC00 && unit <= 0xDFFF;
}

static size_t put_utf8(char *out, uint32_t point)
{
    if (point < 0x80) {
        out[0] = (char)point;
        return 1;
    }
    size_t length = point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    for (size_t i = length - 1; i > 0; i--) {
        out[i] = (char)(0x80 | (point & 0x3F));
        point >>= 6;
    }
    out[0] = (char)(0xF0 << (4 - length) | point);
    return length;
}

/* Takes the next character of a clean copy, in a string decoded, into `out` (four bytes); returns its length. */
static size_t next_character(const unsigned char **at, const unsigned char *end, bool in_string, char *out)
{
    static const char escapes[] = "bfnrt", decoded[] = "\b\f\n\r\t";
    const unsigned char *p = *at;
    if (!in_string || p[0] != '\\') {
        size_t length = qfc_utf8_length(p, end);
        memcpy(out, p, length);
        *at = p + length;
        return length;
    }
    if (p[1] != 'u') {
        const char *escape = strchr(escapes, p[1]);
        out[0] = escape ? decoded[escape - escapes] : (char)p[1];
        *at = p + 2;
        return 1;
    }
    uint32_t point = (uint32_t)json_code_unit(p, end);
    *at = p + JSON_ESCAPE_SIZE;
    if (json_is_high_surrogate((int32_t)point)) {
        point = 0x10000 + ((point - 0xD800) << 10) + (uint32_t)(json_code_unit(*at, end) - 0xDC00);
        *at += JSON_ESCAPE_SIZE;
    }
    return put_utf8(out, point);
}

char *json_text(const char *json, size_t size, size_t max_bytes)
{
    const unsigned char *at = (const unsigned char *)json, *end = at + size;
    bool is_string = *at == '"';
    size_t used = 0, room = size < max_bytes ? size : max_bytes;
    char *text = malloc(room + 1);
    if (!text)
        return NULL;
    if (is_string) {
        at++;
        end--;
    }
    while (at < end) {
        char character[4];
        size_t length = next_character(&at, end, is_string, character);
        if (length > room - used)
            break;
        memcpy(text + used, character, length);
        used += length;
    }
    text[used] = 0;
    return text;
}
