package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/moby/sys/mountinfo"
	"github.com/urfave/cli/v3"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/reprise-containers/reprise/cmd/internal/config"
)

func configCommand() *cli.Command {
	return &cli.Command{
		Name:  "config",
		Usage: "print the configuration in force, defaults included, as a commented file",
		Action: func(ctx context.Context, c *cli.Command) error {
			cfg, err := load(c)
			if err != nil {
				return err
			}
			text, err := cfg.Text()
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(c.Root().Writer, text)
			return err
		},
	}
}

func shutdownCommand() *cli.Command {
	return &cli.Command{
		Name:  "shutdown",
		Usage: "unmount all images and end the descriptor holder, which outlive the daemon otherwise",
		Description: "For the removal of the software, or before a downgrade. The daemon and all\n" +
			"containers on its images must have ended; snapshots and cache stay.",
		Action: func(ctx context.Context, c *cli.Command) error {
			cfg, err := load(c)
			if err != nil {
				return err
			}
			if _, err := os.Stat(stateDir(cfg)); errors.Is(err, os.ErrNotExist) {
				return nil // there never was a daemon
			}
			if err := shutDown(ctx, cfg); err != nil {
				return err
			}
			return unshare(cfg.Root)
		},
	}
}

// shutDown takes over what the last daemon left and takes it down.
func shutDown(ctx context.Context, cfg config.Snapshotter) error {
	server, err := openServer(ctx, cfg, nil)
	if err != nil {
		return err
	}
	defer server.Close()
	server.Ready()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return server.Run(ctx) })
	g.Go(func() error { return server.Shutdown(ctx) })
	return g.Wait()
}

// unshare undoes fusedev.EnsureShared.
func unshare(root string) error {
	mounted, err := mountinfo.Mounted(root)
	if err != nil || !mounted {
		return err
	}
	if err := unix.Unmount(root, unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("unmounting %s: %w", root, err)
	}
	return nil
}
