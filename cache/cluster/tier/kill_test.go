package tier_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/reprise-containers/reprise/cache/cluster/tier"
	"github.com/reprise-containers/reprise/cache/cluster/tier/s3test"
)

// putEnv makes the test program one that puts killedBlob to dir:PATH or s3:ENDPOINT.
const putEnv = "TIER_TEST_PUT"

func TestMain(m *testing.M) {
	if where := os.Getenv(putEnv); where != "" {
		if err := putKilled(where); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func killedBlob() blob { return newBlob(40<<20, 1) }

func putKilled(where string) error {
	kind, place, _ := strings.Cut(where, ":")
	var store tier.Store
	var err error
	if kind == "dir" {
		store, err = tier.NewDir(place)
	} else {
		store, err = tier.NewS3(s3Config(place))
	}
	if err != nil {
		return err
	}
	l, err := tier.New(store, tier.Config{Secret: secret})
	if err != nil {
		return err
	}
	b := killedBlob()
	return l.Put(context.Background(), b.digest, b.object(1), lazy{bytes.NewReader(b.data)})
}

// lazy reads slowly, and of the end nothing, so that there is time to be killed.
type lazy struct{ *bytes.Reader }

func (r lazy) ReadAt(p []byte, off int64) (int, error) {
	time.Sleep(time.Millisecond)
	if off+int64(len(p)) == r.Size() {
		time.Sleep(time.Hour)
	}
	return r.Reader.ReadAt(p, off)
}

// startPut starts a process that puts, and returns how to kill it.
func startPut(t *testing.T, where string) (kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), putEnv+"="+where)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() {
		_ = cmd.Process.Kill()
		if err := cmd.Wait(); err == nil || said.Len() > 0 {
			t.Errorf("it ended before it was killed: %v %s", err, said.String())
		}
	}
}

// await waits until a condition holds.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waiting for %s", what)
		}
	}
}

// nothingThere checks that a killed Put left nothing to see, that a Sweep takes away
// the rest but not within its grace, and that the blob can be put then.
func nothingThere(t *testing.T, s tier.Store) (leftover tier.Removed) {
	t.Helper()
	l, b := newTier(t, s), killedBlob()
	if o, found, err := l.Find(t.Context(), b.digest); found || err != nil {
		t.Fatalf("found %+v: %v", o, err)
	}
	if got := names(t, s, ""); len(got) != 0 {
		t.Errorf("the store has %q", got)
	}
	if report, err := l.Sweep(t.Context(), tier.SweepConfig{}); report != (tier.SweepReport{}) || err != nil {
		t.Errorf("within its grace a sweep did %+v: %v", report, err)
	}
	report, err := l.Sweep(t.Context(), tier.SweepConfig{Grace: -time.Hour})
	if report.Leftover.Count != 1 || report.Objects != 0 || err != nil {
		t.Errorf("the sweep did %+v: %v", report, err)
	}
	put(t, l, b, 1)
	if got, err := drain(t, l, b, b.object(1)); err != nil || !bytes.Equal(got, b.data) {
		t.Errorf("after that: %d bytes: %v", len(got), err)
	}
	if err := l.Remove(t.Context(), b.digest, 1); err != nil {
		t.Error(err)
	}
	return report.Leftover
}

func TestKilledWhilePuttingToDir(t *testing.T) {
	for _, percent := range []int64{0, 10, 60, 95} {
		store, dir := newDir(t)
		temporary := func() []string {
			all, _ := filepath.Glob(filepath.Join(dir, ".new/*"))
			return all
		}
		kill := startPut(t, "dir:"+dir)
		await(t, "the file", func() bool {
			for _, name := range temporary() {
				info, err := os.Stat(name)
				return err == nil && info.Size() >= 40<<20*percent/100
			}
			return false
		})
		kill()
		foreign := filepath.Join(dir, ".new/somebody's.tmp")
		if err := os.WriteFile(foreign, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if leftover := nothingThere(t, store); leftover.Bytes < 40<<20*percent/100 {
			t.Errorf("left were %+v, of %d%%", leftover, percent)
		}
		if left := temporary(); !slices.Equal(left, []string{foreign}) {
			t.Errorf("left are %q", left)
		}
	}
}

func TestKilledWhilePuttingToS3(t *testing.T) {
	server := s3test.Start(t)
	client, err := minio.NewCore(server.Endpoint, &minio.Options{
		Creds: credentials.NewStaticV4(s3test.AccessKey, s3test.SecretKey, ""), Region: s3test.Region, BucketLookup: minio.BucketLookupPath,
	})
	if err != nil {
		t.Fatal(err)
	}
	var foreign []string // uploads of somebody else
	for _, key := range []string{
		"else/v1/x", "some/where/" + folder + "x",
		"some/where/v1-00000000/" + strings.TrimPrefix(objectName(killedBlob(), 1), folder), "some/where/" + objectName(killedBlob(), 1) + ".x",
	} {
		id, err := client.NewMultipartUpload(t.Context(), s3test.Bucket, key, minio.PutObjectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		foreign = append(foreign, id)
	}
	for _, requests := range []int64{1, 2, 3} { // the beginning, and after each part
		proxy := s3test.NewProxy(t, server)
		kill := startPut(t, "s3:"+proxy.Endpoint)
		await(t, "the request", func() bool {
			return proxy.Requests() >= requests && len(uploads(t, client)) > len(foreign)
		})
		kill()
		leftover := nothingThere(t, newS3(t, server.Endpoint))
		if requests == 3 && leftover.Bytes < 16<<20 {
			t.Errorf("left were %+v after a part", leftover)
		}
	}
	left := uploads(t, client)
	slices.Sort(left)
	slices.Sort(foreign)
	if !slices.Equal(left, foreign) {
		t.Errorf("left are %q, not %q", left, foreign)
	}
}

// uploads returns those that are not complete.
func uploads(t *testing.T, client *minio.Core) (ids []string) {
	for u := range client.ListIncompleteUploads(t.Context(), s3test.Bucket, "", true) {
		if u.Err != nil {
			t.Fatal(u.Err)
		}
		ids = append(ids, u.UploadID)
	}
	return ids
}
