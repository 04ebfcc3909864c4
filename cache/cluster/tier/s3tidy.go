package tier

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
)

// Tidy implements Tidier.
func (s *S3) Tidy(ctx context.Context, folder string, before time.Time, alive func()) (removed Removed, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var left []minio.ObjectMultipartInfo
	for u := range s.reads.ListIncompleteUploads(ctx, s.cfg.Bucket, s.cfg.Prefix+folder, true) {
		alive()
		if u.Err != nil {
			return removed, errorOf(u.Err)
		}
		if _, _, ok := names(folder).parse(strings.TrimPrefix(u.Key, s.cfg.Prefix)); ok && u.Initiated.Before(before) {
			left = append(left, u)
		}
	}
	for _, u := range left {
		if ctx.Err() != nil {
			return removed, errors.Join(err, context.Cause(ctx))
		}
		alive()
		size, idle, idleErr := s.idle(ctx, u, before)
		if idleErr == nil && idle {
			idleErr = s.writes.AbortMultipartUpload(ctx, s.cfg.Bucket, u.Key, u.UploadID)
		}
		switch {
		case minio.ToErrorResponse(idleErr).Code == minio.NoSuchUpload: // it has ended
		case idleErr != nil:
			err = errors.Join(err, idleErr)
		case idle:
			removed.Count++
			removed.Bytes += size
		}
	}
	return removed, err
}

// idle reports whether no part of an upload came since a time, and the size of all.
func (s *S3) idle(ctx context.Context, u minio.ObjectMultipartInfo, since time.Time) (size int64, idle bool, err error) {
	for marker := 0; ; {
		parts, err := s.reads.ListObjectParts(ctx, s.cfg.Bucket, u.Key, u.UploadID, marker, 1000)
		if err != nil {
			return 0, false, err
		}
		for _, p := range parts.ObjectParts {
			size += p.Size
			if !p.LastModified.Before(since) {
				return 0, false, nil
			}
		}
		if !parts.IsTruncated {
			return size, true, nil
		}
		marker = parts.NextPartNumberMarker
	}
}
