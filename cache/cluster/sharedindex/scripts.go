package sharedindex

import (
	"embed"

	"github.com/redis/go-redis/v9"
)

//go:embed lua/*.lua
var lua embed.FS

// The scripts, one for each operation that is more than one command. Redis runs each of
// them without anything in between.
var (
	locateScript     = script("locate")
	renewScript      = script("renew")
	releaseScript    = script("release")
	holdScript       = script("hold")
	claimScript      = script("claim")
	renewClaimScript = script("renewclaim")
	publishScript    = script("publish")
	unpublishScript  = script("unpublish")
	announceScript   = script("announce")
	beatScript       = script("beat")
	replicasScript   = script("replicas")
	grantedScript    = script("granted")
	grantScript      = script("grant")
	revokeScript     = script("revoke")
)

// script returns a script of the folder lua, behind the prelude.
func script(name string) *redis.Script {
	var text string
	for _, n := range []string{"prelude", name} {
		b, err := lua.ReadFile("lua/" + n + ".lua")
		if err != nil {
			panic(err) // it is embedded
		}
		text += string(b)
	}
	return redis.NewScript(text)
}
